"""Runs on the machines of an experiment: starts a command so that it outlives the SSH connection, and answers for it.

``start`` returns once the command runs under a supervisor of its own session; the supervisor writes everything that
happens into the job's directory, so that any later connection can ask. Standard library only. A job directory holds

* ``job.json``: command, process id and start time of the supervisor,
* ``ready.json``: the command's ready line, if it has one,
* ``exit.json``: its exit status, its time on the processor and how long it waited for one,
* ``log``: its output.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARVED_SHARE = 0.10
"""Share of its runnable time that a process group may wait for a processor before a run counts as starved."""

_OVER = frozenset({"exited", "vanished", "absent"})
_REACHED = {"started": _OVER | {"running", "ready"}, "ready": _OVER | {"ready"}, "exited": _OVER}
_PR_SET_PDEATHSIG = 1


@dataclass
class Pipes:
    """Our ends of what connects the supervisor with its command and with its own signals."""

    wakeup: int = -1
    ready: int | None = None
    start: int | None = None


def start(directory: Path, command: Sequence[str], *, ready: bool, hold: bool) -> None:
    """Start ``command`` under a supervisor that is a daemon, and return.

    Args:
        directory: of the job, made here.
        command: what to run.
        ready: give it ``--ready-fd`` and keep the line that it writes there.
        hold: give it ``--start-fd``, which :func:`go` writes to.

    Raises:
        FileExistsError: ``directory`` already holds a job.
    """
    directory.mkdir(parents=True, exist_ok=False)
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    _supervise(directory, command, ready, hold)


def status(directory: Path) -> dict[str, Any]:
    """A job's ``state`` (absent, starting, running, ready, exited or vanished) and what it said."""
    job = _read(directory / "job.json")
    if job is None:
        return {"state": "starting" if directory.exists() else "absent"}
    told = {"ready": _read(directory / "ready.json"), "exit": _read(directory / "exit.json")}
    if told["exit"] is not None:
        return {"state": "exited", **told}
    if not _is_alive(job["pid"], job["started"]):
        return {"state": "vanished", **told}
    return {"state": "ready" if told["ready"] else "running", **told}


def go(directory: Path) -> dict[str, Any]:
    """Let a held job begin."""
    (directory / "go").touch()
    return status(directory)


def stop(directory: Path, grace_s: float) -> dict[str, Any]:
    """Ask a job's supervisor to end it (TERM, then KILL of its process group) and wait until it has."""
    job = _read(directory / "job.json")
    if job is not None and _is_alive(job["pid"], job["started"]):
        (directory / "grace").write_text(str(grace_s), encoding="utf-8")
        try:
            handle = os.pidfd_open(job["pid"])
        except ProcessLookupError:
            return status(directory)
        with os.fdopen(handle):
            os.kill(job["pid"], signal.SIGTERM)
            select.select([handle], [], [], grace_s + 10.0)
    return status(directory)


def wait(directory: Path, wanted: str, timeout_s: float) -> dict[str, Any]:
    """Block until a job has ``started``, is ``ready`` or ``exited`` (or can no longer be), at most ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        told = status(directory)
        if told["state"] in _REACHED[wanted] or time.monotonic() >= deadline:
            return told
        time.sleep(0.1)  # the files of another process have no event that the standard library can wait for


def _supervise(directory: Path, command: Sequence[str], ready: bool, hold: bool) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    arguments, pipes, passed = list(command), Pipes(), []
    if ready:
        pipes.ready, theirs = os.pipe()
        arguments += ["--ready-fd", str(theirs)]
        passed.append(theirs)
    if hold:
        theirs, pipes.start = os.pipe()
        arguments += ["--start-fd", str(theirs)]
        passed.append(theirs)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    pipes.wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    _write(directory / "job.json", {"command": arguments, "pid": os.getpid(), "started": _start_time(os.getpid())})
    try:
        child = subprocess.Popen(
            arguments,
            pass_fds=passed,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - the supervisor has no threads
        )
    except OSError as fault:
        _write(directory / "exit.json", {"status": 127, "reason": str(fault)})
        os._exit(0)
    for descriptor in passed:
        os.close(descriptor)
    _follow(directory, child, pipes, stopping)
    os._exit(0)


def _follow(directory: Path, child: subprocess.Popen[bytes], pipes: Pipes, stopping: list[int]) -> None:
    handle = os.pidfd_open(child.pid)
    line, processor = b"", {"cpu_s": 0.0, "waited_s": 0.0}
    kill_at: float | None = None
    while True:
        watched = [one for one in (handle, pipes.wakeup, pipes.ready) if one is not None]
        readable, _, _ = select.select(watched, [], [], 0.2)
        processor = _processor(child.pid, processor)
        if pipes.wakeup in readable:
            os.read(pipes.wakeup, 64)
        if pipes.ready is not None and pipes.ready in readable:
            part = os.read(pipes.ready, 65536)
            line += part
            if line.endswith(b"\n"):
                _write(directory / "ready.json", json.loads(line))
            if not part or line.endswith(b"\n"):
                os.close(pipes.ready)
                pipes.ready = None
        if pipes.start is not None and (directory / "go").exists():
            os.close(pipes.start)
            pipes.start = None
        if handle in readable:
            break
        if stopping and kill_at is None:
            child.terminate()
            kill_at = time.monotonic() + float(_text(directory / "grace") or 10.0)
        if kill_at is not None and time.monotonic() > kill_at:
            _kill_group(child.pid)
    code = child.wait()
    _kill_group(child.pid)
    waited = processor["waited_s"]
    starved = waited > STARVED_SHARE * max(processor["cpu_s"] + waited, 1.0)
    _write(directory / "exit.json", {"status": code, "stopped": bool(stopping), "starved": starved, **processor})


def _processor(session: int, before: dict[str, float]) -> dict[str, float]:
    """Seconds that the processes of a session ran, and waited while runnable; keeps the last sum once they are gone."""
    ran = waited = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != session:
                continue
            for task in (entry / "task").iterdir():
                on_cpu, in_queue, _ = (task / "schedstat").read_text().split()
                ran += int(on_cpu)
                waited += int(in_queue)
        except (OSError, ValueError):
            continue  # it ended while it was looked at
    return {"cpu_s": max(before["cpu_s"], ran / 1e9), "waited_s": max(before["waited_s"], waited / 1e9)}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of it is left


def _start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])


def _is_alive(pid: int, started: int) -> bool:
    """Whether the very process that was recorded still runs; a reused process id does not count."""
    try:
        return _start_time(pid) == started
    except (OSError, IndexError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    return json.loads(text) if text else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """``agent.py start|status|wait|go|stop DIRECTORY …``; prints the job's state as one JSON line."""
    parser = argparse.ArgumentParser(prog="agent")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("start", "status", "wait", "go", "stop"):
        sub = verbs.add_parser(verb)
        sub.add_argument("directory", type=Path)
        if verb == "start":
            sub.add_argument("--ready", action="store_true")
            sub.add_argument("--hold", action="store_true")
            sub.add_argument("command", nargs="+")
        if verb == "wait":
            sub.add_argument("--for", dest="wanted", choices=("ready", "exited"), required=True)
        if verb in ("wait", "stop"):
            sub.add_argument("--timeout-s", type=float, default=10.0)
    words = list(sys.argv[1:] if arguments is None else arguments)
    rest: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, rest = words[:cut], words[cut + 1 :]
    options = parser.parse_args([*words, *rest[:1]] if words[:1] == ["start"] else words)
    if options.verb == "start":
        start(options.directory, rest, ready=options.ready, hold=options.hold)
        told = wait(options.directory, "started", 10.0)
    elif options.verb == "wait":
        told = wait(options.directory, options.wanted, options.timeout_s)
    elif options.verb == "go":
        told = go(options.directory)
    elif options.verb == "stop":
        told = stop(options.directory, options.timeout_s)
    else:
        told = status(options.directory)
    print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
