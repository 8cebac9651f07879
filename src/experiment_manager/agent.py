"""Runs on the machines of an experiment: starts a command so that it outlives the SSH connection, and answers for it.

``start`` returns once the command runs under a supervisor of its own session; the supervisor writes everything that
happens into the job's directory, so that any later connection can ask. Standard library only. A job directory holds

* ``job.json``: command, process id and start time of the supervisor,
* ``ready.json``: the command's ready line, if it has one,
* ``exit.json``: its exit status, its time on the processor and how long it waited for one since ``go``,
* ``log``: its output.

A job with a lease ends by itself when nobody has renewed the lease file for that long: a manager that was killed, or
whose network is gone for good, leaves nothing running.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_manager.accounting import Lease, Processor

_OVER = frozenset({"exited", "vanished", "absent"})
_REACHED = {"started": _OVER | {"running", "ready"}, "ready": _OVER | {"ready"}, "exited": _OVER}
_PR_SET_PDEATHSIG = 1
GRACE_S = 10.0
"""How long a job may take to end when nobody says otherwise."""
FULL_BYTES = 1 << 16
"""A device with less than this left is full."""
LEASE = "lease"
"""The file in a run's folder that its manager touches, by ``renew``."""
_SAMPLE_S = 1.0
_LOOK_S = 0.1
"""Between two looks for a file that a supervisor writes while it runs."""
_STARTING_S = 5.0
"""How long a job may take from being started to saying so."""


@dataclass
class Pipes:
    """Our ends of what connects the supervisor with its command and with its own signals."""

    wakeup: int = -1
    ready: int | None = None
    start: int | None = None


def start(
    directory: Path, command: Sequence[str], *, ready: bool, hold: bool, lease: Path | None, lease_s: float
) -> None:
    """Start ``command`` under a supervisor that is a daemon, and return.

    Args:
        directory: of the job, made here.
        command: what to run.
        ready: give it ``--ready-fd`` and keep the line that it writes there.
        hold: give it ``--start-fd``, which :func:`go` writes to.
        lease: file that must change at least every ``lease_s``, else the job is ended; ``None``: no lease.
        lease_s: see ``lease``.

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
    watched = Lease(lease or directory, None if lease is None else lease_s)
    _supervise(directory, command, ready, hold, watched)


def status(directory: Path) -> dict[str, Any]:
    """A job's ``state`` (absent, starting, running, ready, exited or vanished) and what it said."""
    job = _read(directory / "job.json")
    if job is None:
        return {"state": "starting" if directory.exists() else "absent"}
    is_alive = _is_alive(job["pid"], job["started"])  # asked first: its last act is to write how the job ended
    told = {"ready": _read(directory / "ready.json"), "exit": _read(directory / "exit.json")}
    if told["exit"] is not None:
        return {"state": "exited", **told}
    if not is_alive:
        return {"state": "vanished", **told}
    return {"state": "ready" if told["ready"] else "running", **told}


def go(directory: Path) -> dict[str, Any]:
    """Let a held job begin; the account of its processor time starts here."""
    (directory / "go").touch()
    job = _read(directory / "job.json")
    if job is not None and _is_alive(job["pid"], job["started"]):
        os.kill(job["pid"], signal.SIGUSR1)
    return status(directory)


def clear(root: Path, prefix: str, grace_s: float) -> list[str]:
    """Stop every job in the folders of ``root`` that begin with ``prefix``, remove those folders, and name them.

    It is what a manager does about its own earlier runs that it could not finish.
    """
    places = sorted(root.glob(prefix + "*"))
    for place in places:
        remove(place, grace_s)
    return [place.name for place in places]


def remove(place: Path, grace_s: float) -> None:
    """Stop every job in a folder, and remove the folder: what still ran there could no longer be found."""
    stop([job.parent for job in sorted(place.rglob("job.json"))], grace_s)
    shutil.rmtree(place)


def tail(directory: Path, lines: int) -> list[str]:
    """The last lines of a job's log, and why there may be none: a full disk ends jobs without a word."""
    said = _text(directory / "log").splitlines()[-lines:]
    if directory.exists() and shutil.disk_usage(directory).free < FULL_BYTES:
        said.append(f"no space is left on the device that holds {directory}: free some, or set work_dir")
    return said


def stop(directories: Sequence[Path], grace_s: float) -> list[dict[str, Any]]:
    """Ask jobs' supervisors to end them (TERM, then KILL of the process group) and wait until they have."""
    for directory in directories:
        wait([directory], "started", _STARTING_S)  # else there is nothing yet to ask, and it would begin afterwards
    with contextlib.ExitStack() as handles:
        waiting = []
        for directory in directories:
            job = _read(directory / "job.json")
            if job is None or not _is_alive(job["pid"], job["started"]):
                continue
            with contextlib.suppress(OSError):  # on a full disk it stops all the same, after the usual grace
                (directory / "grace").write_text(str(grace_s), encoding="utf-8")
            try:
                waiting.append(handles.enter_context(os.fdopen(os.pidfd_open(job["pid"]))).fileno())
                os.kill(job["pid"], signal.SIGTERM)
            except ProcessLookupError:
                continue  # it ended just now
        deadline = time.monotonic() + grace_s + 10.0
        for handle in waiting:
            select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
    return [status(directory) for directory in directories]


def wait(directories: Sequence[Path], wanted: str, timeout_s: float) -> list[dict[str, Any]]:
    """Block until all jobs have ``started``, are ``ready`` or ``exited`` (or can no longer be), at most ``timeout_s``.

    Returns early when one of them has failed.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        handles: dict[Path, int] = {}
        while True:
            for directory in directories:  # before the look at their states: what ends in between is an event, too
                if directory not in handles and (handle := _handle(directory, stack)) is not None:
                    handles[directory] = handle
            told = [status(directory) for directory in directories]
            if all(one["state"] in _REACHED[wanted] for one in told) or any(has_failed(one) for one in told):
                return told
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                return told
            live = [where for where, one in zip(directories, told, strict=True) if one["state"] not in _OVER]
            ends = [handles[where] for where in live if where in handles]
            # That a supervisor ends is an event; that it writes a file is none that the standard library can wait for.
            select.select(ends, [], [], left_s if wanted == "exited" and len(ends) == len(live) else _LOOK_S)


def _handle(directory: Path, stack: contextlib.ExitStack) -> int | None:
    """A descriptor that is readable once a job's supervisor has ended; ``None`` where there is no such process."""
    job = _read(directory / "job.json")
    if job is None:
        return None
    try:
        handle = os.pidfd_open(job["pid"])
    except ProcessLookupError:
        return None
    stack.callback(os.close, handle)
    return handle


def has_failed(told: dict[str, Any]) -> bool:
    """Whether a job's state is one that it should not end in."""
    return told["state"] in ("vanished", "absent") or (told["state"] == "exited" and told["exit"]["status"] != 0)


def _supervise(directory: Path, command: Sequence[str], ready: bool, hold: bool, lease: Lease) -> None:
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
    signal.signal(signal.SIGUSR1, lambda *_: None)
    pipes.wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    try:
        _write(directory / "job.json", {"command": arguments, "pid": os.getpid(), "started": _start_time(os.getpid())})
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)  # a job that nobody could stop must not begin
        os._exit(1)
    try:
        child = subprocess.Popen(
            arguments,
            pass_fds=passed,
            start_new_session=True,
            preexec_fn=functools.partial(_die_with, os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
        )
    except OSError as fault:
        _write(directory / "exit.json", {"status": 127, "reason": str(fault)})
        os._exit(0)
    for descriptor in passed:
        os.close(descriptor)
    _follow(directory, child, pipes, stopping, lease)
    os._exit(0)


def _follow(directory: Path, child: subprocess.Popen[bytes], pipes: Pipes, stopping: list[int], lease: Lease) -> None:
    handle = os.pidfd_open(child.pid)
    processor = Processor(child.pid)
    line, reason, begun = b"", "", False
    kill_at: float | None = None
    while True:
        watched = [one for one in (handle, pipes.wakeup, pipes.ready) if one is not None]
        readable, _, _ = select.select(watched, [], [], _SAMPLE_S)
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
        if not begun and (directory / "go").exists():
            begun = True
            processor.restart()
            if pipes.start is not None:
                os.close(pipes.start)
                pipes.start = None
        processor.sample()
        if handle in readable:
            break
        if not stopping and lease.expired():
            reason = f"nobody renewed its lease for {lease.seconds:g} s"
            stopping.append(signal.SIGTERM)
        if stopping and kill_at is None:
            child.terminate()
            kill_at = time.monotonic() + float(_text(directory / "grace") or GRACE_S)
        if kill_at is not None and time.monotonic() > kill_at:
            _kill_group(child.pid)
    account = processor.told()
    code = child.wait()
    _kill_group(child.pid)
    with contextlib.suppress(OSError):  # on a full disk it has vanished, for all that can be told
        _write(directory / "exit.json", {"status": code, "stopped": bool(stopping), "reason": reason, **account})


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be bound to


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of it is left


def _stat(pid: int) -> list[str]:
    """What ``/proc`` says of a process after its name: its state comes first, when it started as the twentieth."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _start_time(pid: int) -> int:
    return int(_stat(pid)[19])


def _is_alive(pid: int, started: int) -> bool:
    """Whether the very process that was recorded still runs; a reused process id does not count.

    Nor does one that has ended and that nobody has waited for: a container's first process often waits for none.
    """
    try:
        told = _stat(pid)
        return told[0] not in "ZX" and int(told[19]) == started
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
    """``agent start|status|wait|go|stop|tail|renew|remove|clear …`` prints what it has to say as one JSON line.

    ``agent serve`` reads command lines as JSON lists, a line each, and answers each with a line ``{"told": …}`` or
    ``{"error": …}``: one process for a whole connection.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words != ["serve"]:
        print(json.dumps(perform(words)), flush=True)
        return 0
    for line in sys.stdin:
        try:
            answer = {"told": perform(json.loads(line))}
        except (OSError, ValueError) as fault:
            answer = {"error": str(fault)}
        print(json.dumps(answer), flush=True)
    return 0


def perform(words: Sequence[str]) -> Any:
    """Do what a command line says; what comes after ``--`` is the command of ``start``.

    Raises:
        OSError: a file or process could not be handled.
    """
    cut = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:cut])
    if options.verb == "start":
        start(
            options.directory,
            words[cut + 1 :],
            ready=options.ready,
            hold=options.hold,
            lease=options.lease,
            lease_s=options.lease_s,
        )
        return wait([options.directory], "started", 10.0)[0]
    if options.verb == "wait":
        return wait(options.directories, options.wanted, options.timeout_s)
    if options.verb == "go":
        return [go(directory) for directory in options.directories]
    if options.verb == "stop":
        return stop(options.directories, options.timeout_s)
    if options.verb == "clear":
        return clear(options.directory, options.prefix, options.timeout_s)
    if options.verb == "tail":
        return tail(options.directory, options.lines)
    if options.verb == "renew":
        options.directory.mkdir(parents=True, exist_ok=True)
        return (options.directory / LEASE).touch()
    if options.verb == "remove":
        return remove(options.directory, GRACE_S)
    return status(options.directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("start", "status", "clear", "tail", "renew", "remove"):
        sub = verbs.add_parser(verb)
        sub.add_argument("directory", type=Path)
        if verb == "start":
            sub.add_argument("--ready", action="store_true")
            sub.add_argument("--hold", action="store_true")
            sub.add_argument("--lease", type=Path, default=None)
            sub.add_argument("--lease-s", type=float, default=60.0)
        if verb == "tail":
            sub.add_argument("--lines", type=int, default=5)
        if verb == "clear":
            sub.add_argument("--prefix", required=True)
            sub.add_argument("--timeout-s", type=float, default=GRACE_S)
    for verb in ("wait", "go", "stop"):
        sub = verbs.add_parser(verb)
        sub.add_argument("directories", type=Path, nargs="+")
        if verb == "wait":
            sub.add_argument("--for", dest="wanted", choices=("ready", "exited"), required=True)
        if verb != "go":
            sub.add_argument("--timeout-s", type=float, default=GRACE_S)
    return parser


if __name__ == "__main__":
    sys.exit(main())
