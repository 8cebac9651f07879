"""A frame while bodies are put into it, farthest first, and a map of which body owns each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.stamps import Stamp

MOST_BODIES = 255
"""The map of owners is of bytes, and 0 is nobody."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A body in the frame.

    Attributes:
        number: its value in the map of owners.
        box: left, top, right, bottom in pixels within the frame, right and bottom exclusive.
        body_pixels: of the whole body, outside the frame included.
    """

    number: int
    box: tuple[int, int, int, int]
    body_pixels: float


class Window(NamedTuple):
    """Where a stamp meets the frame.

    Attributes:
        x0: left side in the frame.
        y0: upper side.
        x1: right side, exclusive.
        y1: lower side, exclusive.
        part: of the stamp that is in the frame.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    part: tuple[slice, slice]


def put(picture: NDArray[np.uint8], stamp: Stamp, left: int, top: int) -> Window | None:
    """Blend ``stamp`` into ``picture``, its upper left corner at ``left, top``.

    Args:
        picture: ``(h, w, 3)`` uint8, changed in place.
        stamp: what to blend.
        left: may be outside the frame.
        top: likewise.

    Returns:
        ``None`` when none of it is in the frame.
    """
    rows, columns = stamp.body.shape
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + columns, width), min(top + rows, height)
    if x0 >= x1 or y0 >= y1:
        return None
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    under = picture[y0:y1, x0:x1]
    cv2.multiply(under, stamp.keep[part], dst=under, scale=1.0 / 255.0)
    cv2.add(under, stamp.colour[part], dst=under)
    return Window(x0, y0, x1, y1, part)


class Owners:
    """Which body owns each pixel of a frame of ``height`` x ``width``."""

    def __init__(self, height: int, width: int) -> None:
        self._owners = np.zeros((height, width), np.uint8)
        self._count = 0

    def claim(self, stamp: Stamp, window: Window) -> Placed | None:
        """Give what ``stamp`` covers to the next, nearer body; ``None`` when that is nothing of the frame."""
        self._count += 1
        x0, y0, x1, y1, part = window
        owners = self._owners[y0:y1, x0:x1]
        # Numbers grow with nearness, so the larger one owns the pixel.
        np.maximum(owners, stamp.body[part] & np.uint8(self._count), out=owners)
        if (y1 - y0, x1 - x0) != stamp.body.shape:
            inner = cv2.boundingRect(cv2.bitwise_not(stamp.keep[part][:, :, 0]))
            if inner[2] == 0:
                return None
            x0, y0, x1, y1 = x0 + inner[0], y0 + inner[1], x0 + inner[0] + inner[2], y0 + inner[1] + inner[3]
        return Placed(self._count, (x0, y0, x1, y1), stamp.body_pixels)

    def visible(self, placed: Placed) -> float:
        """Share of a body's pixels that is in the frame and owned by it."""
        x0, y0, x1, y1 = placed.box
        mine = np.count_nonzero(self._owners[y0:y1, x0:x1] == placed.number)
        return min(1.0, mine / placed.body_pixels)
