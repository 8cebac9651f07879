"""``moonjelly test``: what CI runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

ROOT = Path(__file__).resolve().parents[2]
_TESTS_FAILED = 1  # pytest's exit status


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_suite(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="also the long tier: soak, chaos, fuzzing")] = False,
    strict_skips: Annotated[
        bool, typer.Option("--strict-skips", help="fail on a skip that tests/allowed_skips.txt does not list (CI does)")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="run what failed once more, alone, and go by that (CI does)")
    ] = False,
) -> None:
    """Run format, lint, types, import contracts, stub check and every test.

    Further arguments go to pytest; with any, only pytest runs.
    """
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    if not context.args:
        static = subprocess.run(["make", "--no-print-directory", "static"], cwd=ROOT, env=environment, check=False)
        if static.returncode:
            raise typer.Exit(static.returncode)
    command = [sys.executable, "-m", "pytest", *context.args]
    if not full:
        command += ["-m", "not full"]
    if strict_skips:
        command += ["--strict-skips"]
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if retry_failed and status == _TESTS_FAILED:
        # Whole systems run on machines that others use, too: what only fails there and then is no reason to refuse a
        # change. It is a reason to look: the first run's report stays above this one.
        print("\nrun.sh test: what failed runs once more, alone", flush=True)
        again = [*command, "--last-failed", "--last-failed-no-failures", "none"]
        status = subprocess.run(again, cwd=ROOT, env=environment, check=False).returncode
        if status == 0:
            print("run.sh test: PASSED ONLY WHEN REPEATED; the failures above are worth a look")
    raise typer.Exit(status)
