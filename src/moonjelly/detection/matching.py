"""F1 against a golden model's detections on the same frames (Jellyfish, section V)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.detection.boxes import iou_matrix
from moonjelly.types import Detections

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """Matches of detections with the truth; add the counts of frames, never their ratios.

    Attributes:
        true_positives: boxes found.
        false_positives: boxes invented.
        false_negatives: boxes overlooked.
    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the detected boxes that are right; 0 when there are none."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the golden boxes that were found; 0 when there are none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing was counted."""
        return _ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


def match(detected: Detections, golden: Detections, iou_threshold: float = MATCH_IOU) -> MatchCounts:
    """Match one frame: in descending score, each box takes the free golden box of its class that it overlaps most.

    Args:
        detected: of the frame; :meth:`Detections.empty` for a missed frame.
        golden: of the same frame.
        iou_threshold: overlap from which on two boxes are the same object.
    """
    free = iou_matrix(detected.boxes, golden.boxes)
    free[detected.classes[:, None] != golden.classes[None, :]] = -1.0
    found = 0
    if len(golden):
        for index in np.argsort(-detected.scores, kind="stable"):
            best = int(free[index].argmax())
            if free[index, best] >= iou_threshold:
                found += 1
                free[:, best] = -1.0
    return MatchCounts(found, len(detected) - found, len(golden) - found)


def match_frames(
    pairs: Iterable[tuple[Detections, Detections]], iou_threshold: float = MATCH_IOU
) -> MatchCounts:  # fmt: skip
    """Sum over ``(detected, golden)`` of every captured frame; a missed frame has no detections."""
    return sum((match(detected, golden, iou_threshold) for detected, golden in pairs), MatchCounts())


def without_ignored(
    detected: Detections,
    golden: NDArray[np.float32],
    ignored: NDArray[np.float32],
    iou_threshold: float = MATCH_IOU,
) -> Detections:
    """Detections less those of objects that nobody asked for: they are neither right nor wrong.

    Args:
        detected: of the frame.
        golden: ``(n, 4)`` boxes that are asked for; what overlaps one of them always counts.
        ignored: ``(m, 4)`` boxes of real objects that are too small or too hidden to be asked for.
        iou_threshold: overlap from which on a detection means a box.
    """
    if not len(detected) or not len(ignored):
        return detected
    dropped = iou_matrix(detected.boxes, ignored).max(axis=1) >= iou_threshold
    if len(golden):
        dropped &= iou_matrix(detected.boxes, golden).max(axis=1) < iou_threshold
    return Detections(detected.boxes[~dropped], detected.scores[~dropped], detected.classes[~dropped])


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
