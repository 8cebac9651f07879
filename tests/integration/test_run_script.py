"""``./run.sh``: what it makes, on clones that need no packages, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("basename", "bash", "cat", "cut", "dirname", "env", "find", "mkdir", "readlink", "sha256sum", "sh", "touch")


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    """The script, nothing to install, and a command line that prints its words."""
    clone = tmp_path / "a clone"
    for folder in ("src/cli", "network_shaping", "plots"):
        (clone / folder).mkdir(parents=True)
    shutil.copy(root / "run.sh", clone)
    (clone / "requirements.txt").touch()
    (clone / "src" / "cli" / "__main__.py").write_text("import sys; print('words:', *sys.argv[1:])")
    return clone


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH without uv and without a Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return str(folder)


def run(clone: Path, path: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "PYTHON": str(python), "HOME": str(clone.parent)}  # no caches or settings of a user
    command = [str(clone / "run.sh"), "demo", "two words"]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)


def test_a_clone_runs_installs_once_and_may_be_moved(clone: Path, bare_path: str) -> None:
    first = run(clone, bare_path)
    assert (first.returncode, first.stdout) == (0, "words: demo two words\n"), first.stderr
    assert first.stderr == "run.sh: installing requirements.txt into .venv (once)\n"
    assert run(clone, bare_path).stderr == ""
    moved = clone.rename(clone.with_name("moved"))
    again = run(moved, bare_path)
    assert (again.returncode, again.stdout) == (0, "words: demo two words\n"), again.stderr
    assert str(moved) in (moved / ".venv" / "bin" / "moonjelly").read_text()


def test_a_venv_without_pip_gets_it(clone: Path, bare_path: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clone / ".venv")], check=True)
    assert run(clone, bare_path).stdout == "words: demo two words\n"


def test_what_is_missing_is_said(clone: Path, bare_path: str, tmp_path: Path) -> None:
    assert "run.sh: PYTHON=none-such is not to be found" in run(clone, bare_path, "none-such").stderr
    assert "run.sh: PYTHON=/bin/false is not Python 3.10 or newer" in run(clone, bare_path, "/bin/false").stderr
    debians = tmp_path / "python3"
    debians.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    debians.chmod(0o755)
    done = run(clone, bare_path, debians)
    assert done.returncode == 2
    assert done.stderr == (
        f"run.sh: {debians} lacks the venv module: apt install python3-venv (or install uv), then run this again\n"
    )


def test_a_script_without_any_python_says_what_to_do(root: Path, clone: Path, bare_path: str) -> None:
    for file in ("src/interpreter.sh", "download_data.sh"):
        shutil.copy(root / file, clone / file)
    done = subprocess.run([clone / "download_data.sh"], env={"PATH": bare_path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"download_data.sh: needs python3: install it, then run {clone}/run.sh once\n"


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("src/server/run.sh", "serve"),
        ("src/server/profiler/run.sh", "profile"),
        ("src/client/run.sh", "client"),
        ("src/experiment_manager/run_experiments.sh", "experiment run"),
        ("src/simulation/run_compare.sh", "simulate compare"),
        ("src/simulation/run_timings.sh", "simulate timings"),
        ("plots/fig_6/run.sh", "plot fig6"),
        ("plots/fig_7/run.sh", "plot fig7"),
        ("plots/fig_8/run.sh", "plot fig8"),
        ("plots/fig_9/run.sh", "plot fig9"),
    ],
)
def test_jellyfishs_scripts_explain_themselves_by_the_commands_that_they_run(
    root: Path, tmp_path: Path, script: str, command: str
) -> None:
    """From anywhere, through a symbolic link."""
    link = tmp_path / "a link"
    link.symlink_to(root / script)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([link, "--help"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Usage: moonjelly {command} [OPTIONS]" in done.stdout
