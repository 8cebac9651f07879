"""``python -m server.profiler.available ZOO``: exit status 0 when all of the zoo's models are on this machine."""

from __future__ import annotations

import sys

from moonjelly.errors import ZooError
from moonjelly.repository import load_zoo


def available(name: str) -> bool:
    """Whether every model of a zoo can be read."""
    try:
        zoo = load_zoo(name)
        for model in zoo.entries:
            zoo.source(model)
    except ZooError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if available(sys.argv[1]) else 1)
