"""Who shapes an interface: one process at a time, and what a dead one left behind can be found.

The owner holds a lock on a small file below ``/run/moonjelly``; the kernel releases it however the process ends. The
file stays until the interface is clean again, and says what has to be put back.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from moonjelly.errors import ShapingError

DIRECTORY = Path("/run/moonjelly/shaping")


class Claim:
    """The right to shape one interface of the present network namespace.

    Raises:
        ShapingError: another process shapes it, or the file cannot be written.
    """

    def __init__(self, interface: str, directory: Path = DIRECTORY) -> None:
        self._interface = interface
        self._path = directory / f"{_namespace()}-{interface}.json"
        self._file = self._lock()

    @property
    def left_behind(self) -> dict[str, Any] | None:
        """What a process noted that could not clean up; ``None`` if there was none."""
        self._file.seek(0)
        text = self._file.read()
        try:
            noted = json.loads(text) if text else None
        except json.JSONDecodeError:
            return {}
        return noted if isinstance(noted, dict) else None

    def note(self, **facts: Any) -> None:
        """Write down what has to be put back, before anything is changed."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "interface": self._interface, **facts}, self._file)
        self._file.flush()

    def release(self) -> None:
        """The interface is clean: remove the file. Idempotent."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def _lock(self) -> IO[str]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = self._path.open("a+", encoding="utf-8")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    owner = file.read()
                    file.close()
                    raise ShapingError(_taken(self._interface, owner)) from None
                if self._path.exists() and os.fstat(file.fileno()).st_ino == self._path.stat().st_ino:
                    return file
                file.close()  # its owner removed it between our opening and locking it
        except OSError as fault:
            raise ShapingError(
                f"cannot note who shapes '{self._interface}' in {self._path}: {fault}; run as root"
            ) from fault


def interfaces_noted(directory: Path = DIRECTORY) -> list[str]:
    """Interfaces of the present network namespace that have an owner file."""
    prefix = f"{_namespace()}-"
    return sorted(path.stem.removeprefix(prefix) for path in directory.glob(f"{prefix}*.json"))


def forget(namespace: int, directory: Path = DIRECTORY) -> None:
    """Remove the owner files of a network namespace (its inode number) that is about to go, with its interfaces.

    Numbers are used again: a file that stayed would speak of an interface that it never knew.
    """
    for path in directory.glob(f"{namespace}-*.json"):
        path.unlink(missing_ok=True)


def _namespace() -> int:
    return os.stat("/proc/self/ns/net").st_ino


def _taken(interface: str, owner: str) -> str:
    try:
        who = f"process {json.loads(owner)['pid']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"interface '{interface}' is shaped by {who}; stop that first (one experiment per interface at a time)"
