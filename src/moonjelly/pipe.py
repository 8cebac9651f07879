"""What a parent tells its child through an inherited pipe: to begin, or that the parent is gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


def at_end_of(descriptor: int, act: Callable[[], None], *, line_suffices: bool = False) -> None:
    """Call ``act`` once when a pipe ends, or brings a line."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)

    def readable() -> None:
        data = os.read(descriptor, 4096)
        if not data or (line_suffices and b"\n" in data):
            loop.remove_reader(descriptor)
            os.close(descriptor)
            act()

    loop.add_reader(descriptor, readable)
