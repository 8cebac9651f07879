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
from moonjelly.interrupts import interruptible
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
        Exit status: 0 when every run has a valid result, 130 when it was interrupted.

    Raises:
        TestbedError: no testbed can be made here.
    """
    with interruptible():
        try:
            status = _sweep(layout, words, out)
        except KeyboardInterrupt:
            print(f"interrupted: the testbed is removed; results stay in {out}")
            return 130
    if any((path.parent / "summary.json").exists() for path in out.rglob("run.json")):
        _draw(out)
    return status


def _sweep(layout: Layout, words: Sequence[str], out: Path) -> int:
    """Exit status of the sweep; the testbed is gone however it ended."""
    hosts = machines.up(layout)
    try:
        command = [sys.executable, "-m", "cli", "experiment", "run", "--hosts", str(hosts), *_SWEEP, *words]
        place = machines.command_in(layout.manager, [*command, "--out", str(out)])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # In a session of its own, so that it is told to stop once, by us, and has stopped before the machines go.
        manager = subprocess.Popen(place, env=environment, start_new_session=True)
        try:
            return manager.wait()
        except KeyboardInterrupt:
            manager.terminate()
            manager.wait()
            raise
    finally:
        machines.down(layout.name)


def _draw(out: Path) -> None:
    for figure in (
        ["fig6", "--zoo", "yolov4"],
        ["fig7", str(out)],
        ["fig8", str(out)],
        ["fig9", str(out)],
    ):
        plot_app([*figure, "--out", str(out / "figures")], standalone_mode=False)
    print(write_report(out))
