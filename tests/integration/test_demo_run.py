"""What a demo looks at before it starts, what it shows, and which of its clients failed, judged on real processes."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.demo import live, run
from cli.demo.settings import DemoSettings
from cli.processes import Child
from cli.terminal import PIPE_WIDTH
from moonjelly.errors import ConfigError, TraceError, ZooError
from moonjelly.repository import places
from moonjelly.types import Outcome
from tests.support.serving import environment

ENDS_ORDERLY_WHEN_STOPPED = (
    "import signal; told = {signal.SIGTERM}; signal.pthread_sigmask(signal.SIG_BLOCK, told); signal.sigwait(told)"
)


def child(place: Path, name: str, program: str) -> Child:
    log = place / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=errors, stderr=errors)
    return Child(name, process, log, open(os.devnull, "rb", buffering=0))


def settings_of(tmp_path: Path, **changes: Any) -> DemoSettings:
    settings = DemoSettings(
        *("synthetic", "synthetic", "wifi-good"), clients=3, seconds=0.01, seed=0, out=tmp_path / "out", live=False,
        policy="multiset",
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


def test_what_the_run_needs_is_looked_at_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.check_inputs(settings_of(tmp_path, trace="lte-city@12.5"))
    outage = tmp_path / "outage.txt"
    outage.write_text("0\n0\n")
    with pytest.raises(TraceError, match=r"outage.txt' is one long outage"):
        run.check_inputs(settings_of(tmp_path, trace=str(outage)))
    with pytest.raises(ConfigError, match="'x' in 'lte-city@x' is not an offset"):
        run.check_inputs(settings_of(tmp_path, trace="lte-city@x"))
    monkeypatch.setenv("MOONJELLY_DATA", str(tmp_path))
    monkeypatch.setattr(places, "clone_root", lambda: tmp_path / "clone")
    with pytest.raises(ZooError, match=r"a file of model 'yolo-fastest-1.1' .* get it with ./download_data.sh"):
        run.check_inputs(settings_of(tmp_path, zoo=str(Path(__file__).parents[2] / "profiles" / "yolo-fastest")))


def test_the_table_fits_a_terminal_of_80_columns_and_shows_everything_in_a_pipe() -> None:
    status = {"fps": 30.0, "bandwidth_bps": 1e9, "variant": "yolo-fastest-1.1-xl-320", "input_size": 320}
    status |= {"p99_ms": 123.4, "captured": 100} | {one.value.lower(): 0 for one in Outcome} | {"late": 1, "lost": 23}
    shown = live.table("traffic [1].mp4", {"client-0": status}, {"client-0": (75.0, 29.97), "client-1": (100.0, 12.0)})
    console = Console(width=80)
    with console.capture() as narrow:
        console.print(shown)
    headings = ["client", "SLO", "fps", "ans/s", "Mbit/s", "variant", "px", "p99 ms", "missed", "how"]
    assert re.split(" +", narrow.get().splitlines()[1].strip()) == [word for one in headings for word in one.split()]
    assert max(map(len, narrow.get().splitlines())) <= 80
    assert {"1", "late,", "23", "lost"} <= set(narrow.get().split()), "no way to miss is cut off"
    console = Console(width=PIPE_WIDTH)
    with console.capture() as wide:
        console.print(shown)
    assert "yolo-fastest-1.1-xl-320 320    123 24.0 % 1 late, 23 lost" in wide.get()


def test_a_client_that_had_to_be_stopped_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SETTLE_S", 0.0)
    settings = settings_of(tmp_path)
    clients = [
        child(tmp_path, "client-0", "pass"),
        child(tmp_path, "client-1", ENDS_ORDERLY_WHEN_STOPPED),
        child(tmp_path, "client-2", "raise SystemExit('no camera')"),
    ]
    for one in (clients[0], clients[2]):
        one.process.wait()
    overdue = run.watch(Console(quiet=True), clients, settings)
    assert overdue == [clients[1]]
    clients[1].process.terminate()
    clients[1].process.wait()
    said = [str(fault) for fault in run.complaints(clients, overdue)]
    for one in clients:
        one.ready.close()
    assert [text.split(":")[0] for text in said] == [
        "client-1 had not ended 0 s after the run and was stopped", "client-2 ended with status 1",
    ]  # fmt: skip
    assert "no camera" in said[1]
    assert run.complaints(clients[:1], []) == []


def test_a_child_that_cannot_be_started_leaves_no_pipe_open(tmp_path: Path) -> None:
    """In a process of its own: the tests' has threads that open and close descriptors meanwhile."""
    program = """
import os, pathlib, sys
from cli.processes import Children

before = os.listdir("/proc/self/fd")
sys.executable = "/nowhere"
with Children(pathlib.Path(sys.argv[1])) as children:
    try:
        children.start("server", "server", (), pipes=("status", "start"))
    except FileNotFoundError as fault:
        print(fault.filename, os.listdir("/proc/self/fd") == before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "/nowhere True\n", done.stderr
