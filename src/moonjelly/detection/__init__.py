"""From a network's output to boxes, and how good boxes are.

:mod:`~moonjelly.detection.average_precision` and :mod:`~moonjelly.detection.coco` are imported by name.
"""

from moonjelly.detection.boxes import corners, iou_matrix
from moonjelly.detection.matching import MatchCounts, match, match_frames, without_ignored
from moonjelly.detection.nms import IOU_THRESHOLD, SCORE_THRESHOLD, nms, postprocess

__all__ = [
    "IOU_THRESHOLD",
    "SCORE_THRESHOLD",
    "MatchCounts",
    "corners",
    "iou_matrix",
    "match",
    "match_frames",
    "nms",
    "postprocess",
    "without_ignored",
]
