"""A small sweep in a testbed, from nothing to figures and report."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cli.sweep_report import write_report
from cli.testbed import machines
from cli.testbed.layout import Layout
from plots.app import app as plot_app

_SWEEP = (
    "--zoo", "yolov4", "--runtime", "simulated", "--kind", "reference-gpu", "--traces", "synthetic_trace",
    "--slo-ms", "75,150", "--fps", "15", "--repetitions", "2",
)  # fmt: skip
"""Simulated executors with a published GPU profile, so that it runs on any machine."""


def run_demo(layout: Layout, words: Sequence[str], out: Path) -> int:
    """Make a testbed, run a sweep in it, remove it, draw figures 6 to 9 and write the report.

    Args:
        layout: of the testbed.
        words: further options of ``experiment run``.
        out: where everything goes; an interrupted sweep resumes there.

    Returns:
        Exit status: 0 when every run has a valid result.

    Raises:
        TestbedError: no testbed can be made here, or no run came to an end.
    """
    hosts = machines.up(layout)
    try:
        command = [sys.executable, "-m", "cli", "experiment", "run", "--hosts", str(hosts), *_SWEEP, *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        place = machines.command_in(layout.manager, [*command, "--out", str(out)])
        done = subprocess.run(place, env=environment, check=False)
    finally:
        machines.down(layout.name)
    runs = [path for path in out.rglob("run.json") if (path.parent / "summary.json").exists()]
    if not runs:
        raise machines.TestbedError(f"no run below {out} has a valid result")
    newest = str(max(runs, key=lambda path: path.stat().st_mtime).parent)
    for figure in (
        ["fig6", "--zoo", "yolov4"],
        ["fig7", newest, "--zoo", "yolov4"],
        ["fig8", str(out / "runs.csv")],
        ["fig9", newest],
    ):
        plot_app([*figure, "--out", str(out / "figures")], standalone_mode=False)
    print(write_report(out))
    return done.returncode
