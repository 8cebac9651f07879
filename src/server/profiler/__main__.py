"""``python -m server.profiler``."""

from __future__ import annotations

import sys

from moonjelly.errors import MoonjellyError
from moonjelly.interrupts import silently_interruptible

with silently_interruptible():
    from server.profiler.app import app

if __name__ == "__main__":
    try:
        app(prog_name="python -m server.profiler")
    except MoonjellyError as fault:
        print(f"profiler: {fault}", file=sys.stderr)
        sys.exit(fault.exit_code)
