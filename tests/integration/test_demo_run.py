"""Which clients of a demo failed, judged on real processes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cli import processes
from cli.demo import run
from cli.demo.settings import DemoSettings
from cli.processes import Child
from experiment_manager import agent

ENDS_ORDERLY_WHEN_STOPPED = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def child(place: Path, name: str, program: str) -> Child:
    log = place / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=errors, stderr=errors)
    return Child(name, process, log, open(os.devnull, "rb", buffering=0))


def test_a_client_that_had_to_be_stopped_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_SETTLE_S", 0.0)
    settings = DemoSettings(
        *("synthetic", "synthetic", "wifi-good"), clients=3, seconds=0.01, seed=0, out=tmp_path / "out", live=False,
        policy="multiset",
    )  # fmt: skip
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


@pytest.mark.parametrize("die_with", [processes._die_with, agent._die_with])
def test_a_child_whose_parent_went_before_it_could_be_bound_to_it_does_nothing(
    die_with: Callable[[int], None],
) -> None:
    def start(parent: int) -> tuple[int, bytes]:
        bind = functools.partial(die_with, parent)
        done = subprocess.run(["echo", "runs"], stdout=subprocess.PIPE, check=False, preexec_fn=bind)
        return done.returncode, done.stdout

    assert start(os.getpid()) == (0, b"runs\n")
    assert start(os.getpid() + 1) == (1, b"")
