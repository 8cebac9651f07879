"""Processes of the server whose parent goes while they start: they end, and say nothing in its place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from moonjelly.bound import bound_command
from server import ipc
from server.arena import create_arena
from server.channel import Channel, pair
from tests.support.serving import write_zoo


def executor(zoo: Path, arena_fd: int) -> ipc.Configure:
    return ipc.Configure(
        device=0,
        runtime="simulated",
        device_index=0,
        kind="paper-gpu",
        zoos={"default": str(zoo)},
        answers={},
        dispatcher="edf-adaptive",
        max_batch=4,
        resident=0,
        threads=1,
        decoders=1,
        speed=1.0,
        scale=1.0,
        seed=0,
        arena_fd=arena_fd,
        slots=2,
        slot_bytes=4096,
        max_pixels=1 << 20,
    )


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("module", ["server.planner", "server.logs", "server.executor", "server.profiler.worker"])
def test_a_parent_that_goes(module: str, configured: bool, tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo")
    arena = create_arena("test", 2, 4096)
    first: dict[str, ipc.Message] = {
        "server.planner": ipc.ConfigurePlanner("best-uniform", 0, 100.0),
        "server.logs": ipc.ConfigureLogs(str(tmp_path), False),
        "server.executor": executor(zoo, arena.fd),
        "server.profiler.worker": ipc.ConfigureProfiler(0, "simulated", str(zoo), "paper-gpu", 1, 0),
    }
    ours, theirs = pair()
    if configured:
        Channel(ours).send(first[module])
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(theirs.fileno(), arena.fd),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    theirs.close()
    ours.close()
    output, _ = process.communicate(timeout=60)
    arena.close()
    assert output.decode() == ""
    assert process.returncode == 0


def test_a_child_goes_with_its_parent_while_it_imports(tmp_path: Path) -> None:
    """What it imports waits for ever here."""
    waiting = "import sys, threading; print('importing', file=sys.stderr, flush=True); threading.Event().wait()"
    (tmp_path / "waiting.py").write_text(waiting)
    starting = "from server import child; one = child.start('waiting'); "
    starting += "print(one.process.pid, flush=True); one.channel.receive()"
    parent = subprocess.Popen(
        [sys.executable, "-c", starting],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*(path for path in sys.path if path), str(tmp_path)])},
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert parent.stderr.readline() == "importing\n"
    parent.kill()
    assert not psutil.wait_procs([child], timeout=60)[1]
    parent.communicate()


def test_a_child_whose_parent_went_before_it_could_be_bound_to_it_does_nothing() -> None:
    command = bound_command("this", [], signal.SIGTERM)  # prints a poem
    assert subprocess.run(command, capture_output=True, check=True).stdout
    command[command.index(str(os.getpid()))] = str(os.getpid() + 1)
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
