"""``python -m server.bound MODULE FD PARENT``: run a module as a child that dies with its parent.

What a child imports takes a second, and ten on a busy host: bound only then, it would go on without a parent that was
killed meanwhile. So this comes first, and imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind, then become the module."""
    module = sys.argv.pop(1)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        sys.exit(1)  # it died before it could be bound to
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
