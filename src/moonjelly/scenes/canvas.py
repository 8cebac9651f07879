"""A frame while bodies are put into it, farthest first, with a map of which body owns each pixel."""

from __future__ import annotations

from dataclasses import dataclass

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


class Canvas:
    """Bodies are blended into ``picture``, ``(h, w, 3)`` uint8, in place."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        self.picture = picture
        self._owners = np.zeros(picture.shape[:2], np.uint8)
        self._count = 0

    def put(self, stamp: Stamp, left: int, top: int) -> Placed | None:
        """Blend ``stamp`` with its upper left corner at ``left, top``; ``None`` when none of it is in the frame."""
        rows, columns = stamp.body.shape[:2]
        height, width = self.picture.shape[:2]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + columns, width), min(top + rows, height)
        if x0 >= x1 or y0 >= y1:
            return None
        self._count += 1
        part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        keep, body = stamp.keep[part], stamp.body[part]
        under = self.picture[y0:y1, x0:x1]
        under[:] = cv2.add(cv2.multiply(under, keep, scale=1.0 / 255.0), stamp.colour[part])
        owners = self._owners[y0:y1, x0:x1]
        # Numbers grow with nearness, so the larger one owns the pixel.
        np.maximum(owners, body & np.uint8(self._count), out=owners)
        if x1 - x0 < columns or y1 - y0 < rows:
            inner = cv2.boundingRect(cv2.bitwise_not(keep[:, :, 0]))
            if inner[2] == 0:
                return None
            x0, y0, x1, y1 = x0 + inner[0], y0 + inner[1], x0 + inner[0] + inner[2], y0 + inner[1] + inner[3]
        return Placed(self._count, (x0, y0, x1, y1), stamp.body_pixels)

    def visible(self, placed: Placed) -> float:
        """Share of a body's pixels that is in the frame and owned by it."""
        x0, y0, x1, y1 = placed.box
        mine = np.count_nonzero(self._owners[y0:y1, x0:x1] == placed.number)
        return min(1.0, mine / placed.body_pixels)
