"""Ctrl-C and its like: while a program imports what it runs, while it works, and while it puts things in order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def silently_interruptible() -> Iterator[None]:
    """Within the block SIGINT ends this process at once, by the signal itself and without a traceback.

    For imports: nothing has been begun that would have to be put in order. Afterwards SIGINT is a
    :class:`KeyboardInterrupt` again, or whatever it was; a process that ignores it goes on ignoring it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP is a :class:`KeyboardInterrupt`; later ones do nothing.

    So none disturbs the putting in order that the first one brought about. What is ignored stays so (``nohup``).
    """
    told: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        told.append(number)
        if len(told) == 1:
            raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP are kept; at its end the first of them takes effect."""
    kept: list[int] = []
    try:
        with _handled_by(lambda number, frame: kept.append(number)):
            yield
    finally:
        if kept:
            signal.raise_signal(kept[0])


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, now in before.items() if now not in (signal.SIG_IGN, None)]
    try:
        for number in ours:
            signal.signal(number, handler)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
