"""Child processes of the demo: started, waited for by acknowledgement, and always stopped."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from moonjelly.bound import bound_command
from moonjelly.errors import MoonjellyError

Pipe = Literal["status", "start"]
"""A child's ``--status-fd`` or ``--start-fd``."""
_ROOT = Path(__file__).resolve().parents[2]


class ProcessError(MoonjellyError):
    """A child process that did not start, or ended too early."""


@dataclass
class Child:
    """A running child and the ends of its pipes that are ours.

    Attributes:
        name: for people.
        process: the process, leader of its own group.
        log: file that takes its standard error.
        ready: its ready line is read from here.
        status: one JSON line per second, or ``None``.
        start: a line written here lets it begin, or ``None``.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: IO[bytes]
    status: IO[bytes] | None = None
    start: IO[bytes] | None = None

    def complaint(self, what: str) -> ProcessError:
        """An error that carries the last lines the child wrote."""
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        return ProcessError(f"{self.name} {what}: {' / '.join(said) or 'it said nothing'} (see {self.log})")

    def wait_ready(self, timeout_s: float) -> dict[str, Any]:
        """Its ready line.

        Raises:
            ProcessError: it ended first, or was not ready within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.ready], [], [], max(0.0, left))
            if not readable:
                raise self.complaint(f"was not ready within {timeout_s:g} s")
            part = os.read(self.ready.fileno(), 4096)
            if not part:
                self.process.wait()
                raise self.complaint(f"ended with status {self.process.returncode} before it was ready")
            line += part
        parsed: dict[str, Any] = json.loads(line)
        return parsed

    def begin(self) -> None:
        """Let it begin."""
        if self.start is not None:
            self.start.write(b"go\n")
            self.start.close()
            self.start = None


class Children:
    """Starts children and, on leaving, stops every one of them and whatever is left of its process group.

    A process that a child put into a session of its own is that child's to stop. When this process is killed, Linux
    sends each child SIGTERM.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def __enter__(self) -> Children:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, module: str, arguments: Sequence[str], *, pipes: Sequence[Pipe] = ()) -> Child:
        """Start ``python -m module arguments --ready-fd N``.

        Args:
            name: for people and for its log file.
            module: run with ``-m``.
            arguments: its command line.
            pipes: that it has besides.
        """
        log = self._logs / f"{name}.log"
        environment = {**os.environ, "PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"}
        ours, theirs = {}, {}
        with contextlib.ExitStack() as of_child, contextlib.ExitStack() as unless_started:
            for pipe in ("ready", *pipes):
                read, write = os.pipe()
                ours[pipe], theirs[pipe] = (write, read) if pipe == "start" else (read, write)
                unless_started.callback(os.close, ours[pipe])
                of_child.callback(os.close, theirs[pipe])
            ends = [word for pipe, end in theirs.items() for word in (f"--{pipe}-fd", str(end))]
            errors = of_child.enter_context(log.open("wb"))
            process = subprocess.Popen(
                bound_command(module, [*arguments, *ends], signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=tuple(theirs.values()),
                env=environment,
                start_new_session=True,
            )
            unless_started.pop_all()
        child = Child(name, process, log, os.fdopen(ours["ready"], "rb", buffering=0))
        if "status" in ours:
            os.set_blocking(ours["status"], False)
            child.status = os.fdopen(ours["status"], "rb", buffering=0)
        if "start" in ours:
            child.start = os.fdopen(ours["start"], "wb", buffering=0)
        self._children.append(child)
        return child

    def stop(self, grace_s: float = 10.0) -> None:
        """SIGTERM in reverse order of starting, then SIGKILL to whatever is left of each group."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            _kill_group(child.process.pid)
            for pipe in (child.ready, child.status, child.start):
                if pipe is not None:
                    pipe.close()
        self._children.clear()


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing of the group is left: the usual case
