"""Ctrl-C while a program still imports what it runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


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
