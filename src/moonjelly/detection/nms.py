"""Non-maximum suppression, and the whole way from a network's output to detections.

Greedy and per class, as Darknet's ``do_nms_sort`` and OpenCV's ``DetectionModel`` do it; the thresholds are
Jellyfish's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moonjelly.detection.boxes import corners, iou_matrix
from moonjelly.types import Detections

SCORE_THRESHOLD = 0.20
IOU_THRESHOLD = 0.4
MAX_DETECTIONS = 100
"""Per frame, as COCO's evaluation counts them."""

_BLOCK = 512
"""Candidates whose IoU matrix is computed at once: bounds memory where thousands reach the threshold."""


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int32],
    iou_threshold: float = IOU_THRESHOLD,
) -> NDArray[np.intp]:
    """Indices of the boxes that no better kept box of their class overlaps by more than ``iou_threshold``.

    Args:
        boxes: ``(n, 4)`` corners.
        scores: ``(n,)``.
        classes: ``(n,)``.
        iou_threshold: in [0, 1].

    Returns:
        ``(k,)`` indices by descending score; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept: NDArray[np.intp] = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        rivals = (classes[kept, None] == classes[None, block]) & (iou_matrix(boxes[kept], boxes[block]) > iou_threshold)
        block = block[~rivals.any(axis=0)]
        kept = np.concatenate((kept, block[_greedy(boxes[block], classes[block], iou_threshold)]))
    return kept


def _greedy(boxes: NDArray[np.float32], classes: NDArray[np.int32], iou_threshold: float) -> NDArray[np.bool_]:
    """Which of the boxes, best first, stay."""
    suppresses = (iou_matrix(boxes, boxes) > iou_threshold) & (classes[:, None] == classes[None, :])
    alive = np.ones(len(boxes), np.bool_)
    # Only boxes that overlap another can change anything.
    for index in np.flatnonzero(np.triu(suppresses, 1).any(axis=1)):
        if alive[index]:
            alive[index + 1 :] &= ~suppresses[index, index + 1 :]
    return alive


def postprocess(
    predictions: NDArray[np.float32],
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    *,
    multi_label: bool = False,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """Detections of every frame of a batch.

    Args:
        predictions: ``(b, n, 5 + C)``: centre x, centre y, width, height as fractions, objectness, class probabilities.
        score_threshold: a score, objectness times class probability, counts from here on.
        iou_threshold: two boxes of a class that overlap more are one.
        multi_label: every class of a candidate that reaches the threshold counts, as in Darknet's evaluation, instead
            of its best one alone, as in OpenCV's ``DetectionModel``. For average precision at low thresholds.
        max_detections: the best so many of each frame are kept.

    Returns:
        One per frame, boxes clipped to the frame; values that are not finite never become detections.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return [_one_frame(frame, score_threshold, iou_threshold, multi_label, max_detections) for frame in predictions]


def _one_frame(
    frame: NDArray[np.float32], score_threshold: float, iou_threshold: float, multi_label: bool, max_detections: int
) -> Detections:
    # A score is at most its objectness, so most candidates need no look at their classes.
    rows = frame[frame[:, 4] >= score_threshold]
    if not len(rows):
        return Detections.empty()
    scores = rows[:, 5:] * rows[:, 4:5]
    if multi_label:
        chosen, classes = np.nonzero(scores >= score_threshold)
    else:
        best = scores.argmax(axis=1)
        chosen = np.flatnonzero(scores[np.arange(len(rows)), best] >= score_threshold)
        classes = best[chosen]
    boxes = corners(rows[chosen, :4])
    scores = scores[chosen, classes]
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        boxes, scores, classes = boxes[finite], scores[finite], classes[finite]
    kinds = classes.astype(np.int32)
    kept = nms(boxes, scores, kinds, iou_threshold)[:max_detections]
    return Detections(boxes[kept].clip(0.0, 1.0), scores[kept], kinds[kept])
