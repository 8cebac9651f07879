"""``python -m server.profiler``."""

from __future__ import annotations

import sys

from moonjelly import command_line
from moonjelly.interrupts import silently_interruptible

with silently_interruptible():
    from server.profiler.app import app

if __name__ == "__main__":
    sys.exit(command_line.run(app, "moonjelly profile"))
