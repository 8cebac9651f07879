"""``python -m network_shaping``."""

import sys

from moonjelly.interrupts import silently_interruptible

with silently_interruptible():
    from network_shaping.app import main

if __name__ == "__main__":
    sys.exit(main())
