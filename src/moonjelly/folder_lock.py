"""A folder that one process at a time writes to."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from moonjelly.errors import MoonjellyError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def held(folder: Path, work: str) -> Iterator[None]:
    """Hold ``folder`` for this process; it is made if it is not there. A process that ends lets go.

    Args:
        folder: to write to.
        work: what is done there, as the refusal names it: ``runs a sweep into``.

    Raises:
        MoonjellyError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another one"
            raise MoonjellyError(f"process {owner} {work} {folder}; wait for it, or name another --out") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
