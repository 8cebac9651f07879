"""``python -m moonjelly`` and the console script: hand over to the clone's command line, or say where it is."""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Run the command line when this is a clone; the wheel holds the library alone."""
    if importlib.util.find_spec("cli") is None or importlib.util.find_spec("cli.app") is None:
        print(
            "moonjelly: this is the library alone (planning, sdk). The command line runs from a clone: "
            "get the sources and use ./run.sh there.",
            file=sys.stderr,
        )
        return 2
    app = importlib.import_module("cli.app")
    return int(app.main())


if __name__ == "__main__":
    sys.exit(main())
