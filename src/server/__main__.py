"""``python -m server``."""

import sys

from moonjelly.interrupts import silently_interruptible

with silently_interruptible():
    from server.app import main

if __name__ == "__main__":
    sys.exit(main())
