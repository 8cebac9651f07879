"""``python -m moonjelly.bound PARENT SIGNAL MODULE ARGUMENT...``: run a module as a child that dies with its parent.

What a child imports takes a second, and ten on a busy host: bound only then, it would go on without a parent that was
killed meanwhile. So this comes first, and imports next to nothing. Bound between fork and exec instead, Python's code
would run in a copy of a process that may have threads, those of gRPC among them.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def bound_command(module: str, arguments: Sequence[str], with_signal: signal.Signals) -> list[str]:
    """The command line of a child of this process that runs ``module`` and gets ``with_signal`` when this one ends."""
    return [sys.executable, "-m", __name__, str(os.getpid()), str(with_signal.value), module, *arguments]


def main() -> None:
    """Bind, then become the module."""
    parent, number, module = int(sys.argv.pop(1)), int(sys.argv.pop(1)), sys.argv.pop(1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit(1)  # it died before it could be bound to
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
