"""Where the commands print what people read."""

from __future__ import annotations

import os

from rich.console import Console

PIPE_WIDTH = 150
"""Columns of a table that goes to a file or a pipe: there is no terminal to fit."""


def make_console() -> Console:
    """Standard output, as wide as the terminal that it is, or as ``COLUMNS`` says."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_WIDTH)
