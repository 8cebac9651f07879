"""The truth of a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.types import Detections

ASKED_VISIBLE = 0.5
"""A detector is asked for objects of which at least this share shows ..."""
ASKED_SIDE = 0.05
"""... and whose larger side is at least this share of the frame's width (32 pixels of 640)."""


@dataclass(frozen=True, eq=False, slots=True)
class FrameLabels:
    """What is in a frame, nearest last.

    Attributes:
        boxes: ``(n, 4)`` float32, ``x1 y1 x2 y2`` as fractions of the frame's width and height: the smallest box
            around the pixels of the body that lie within the frame, hidden ones included.
        classes: ``(n,)`` int32 indices into :data:`moonjelly.scenes.CLASSES`.
        tracks: ``(n,)`` int64, the same number for the same object in every frame.
        visible: ``(n,)`` float32 in (0, 1]: share of the body's pixels that are within the frame and not hidden.
        distance_m: ``(n,)`` float32, along the road.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    tracks: NDArray[np.int64]
    visible: NDArray[np.float32]
    distance_m: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, min_visible: float = 0.0, min_side: float = 0.0) -> FrameLabels:
        """Those that show at least ``min_visible`` and are at least ``min_side`` of the frame wide or high."""
        sides = np.max(self.boxes[:, 2:] - self.boxes[:, :2], axis=1, initial=0.0)
        return self.where((self.visible >= min_visible) & (sides >= min_side))

    def asked(self, width: int, height: int) -> NDArray[np.bool_]:
        """``(n,)``: what a detector is asked for in a frame of that many pixels; what else it sees does not count."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]) * (1.0, height / width)
        return np.asarray((self.visible >= ASKED_VISIBLE) & (sides.max(axis=1, initial=0.0) >= ASKED_SIDE))

    def where(self, keep: NDArray[np.bool_]) -> FrameLabels:
        """Those where ``keep``, ``(n,)``, is true."""
        return FrameLabels(
            self.boxes[keep], self.classes[keep], self.tracks[keep], self.visible[keep], self.distance_m[keep]
        )

    def as_detections(self) -> Detections:
        """The same boxes as perfect detections (score 1)."""
        return Detections(self.boxes, np.ones(len(self), np.float32), self.classes)
