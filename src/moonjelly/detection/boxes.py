"""Boxes as arrays: ``x1 y1 x2 y2`` in any unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def corners(centred: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(n, 4)`` of centre x, centre y, width, height to ``(n, 4)`` corners."""
    half = centred[:, 2:4] * np.float32(0.5)
    boxes: NDArray[np.float32] = np.concatenate((centred[:, :2] - half, centred[:, :2] + half), axis=1)
    return boxes


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(n,)`` areas; 0 for a box whose sides are not positive."""
    sides = np.maximum(boxes[:, 2:4] - boxes[:, :2], np.float32(0))
    products: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return products


def iou_matrix(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair.

    Args:
        first: ``(n, 4)`` corners.
        second: ``(m, 4)`` corners.

    Returns:
        ``(n, m)`` in [0, 1]; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    sides = np.maximum(high - low, np.float32(0))
    overlap: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    union = areas(first)[:, None] + areas(second)[None, :] - overlap
    ratios: NDArray[np.float32] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratios
