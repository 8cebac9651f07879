"""``python -m client``."""

import sys

from moonjelly.interrupts import silently_interruptible

with silently_interruptible():
    from client.app import main

if __name__ == "__main__":
    sys.exit(main())
