"""``python -m cli.as_script NAME MODULE [ARGUMENTS]``: run a program under the name of the script that starts it.

Users of Jellyfish stop a program by signalling ``run.sh`` by name, as its README prints it. A script that gives its
process to Python, so that signals, exit status and process id are the program's own, loses its name to the
interpreter.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Take the name, then be the module."""
    name, module = sys.argv[1:3]
    with contextlib.suppress(OSError):  # only Linux has it; elsewhere the name stays the interpreter's
        Path("/proc/self/comm").write_text(name, encoding="utf-8")
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
