"""The made-up GPU ``reference-gpu``: a formula for simulations, tests and benchmarks without a GPU. Nobody measured it.

Sixteen YOLOv4 variants at Jellyfish's input sizes. The latency is the quadratic in the input size of Jellyfish's
simulation with a floor of 6 ms, times ``0.75 + 0.25 b`` for a batch of ``b``; the accuracies are plausible.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from moonjelly.profiles import Profile
from moonjelly.types import Variant

KIND = "reference-gpu"
FLOOR_MS = 6.0

ACCURACY: Mapping[int, float] = MappingProxyType(
    {
        128: 0.19, 160: 0.24, 192: 0.28, 224: 0.31, 256: 0.335, 288: 0.355, 320: 0.37, 352: 0.385,
        384: 0.395, 416: 0.405, 448: 0.412, 480: 0.418, 512: 0.423, 544: 0.427, 576: 0.43, 608: 0.432,
    }
)  # fmt: skip
"""Input size in pixels to a plausible COCO average precision of a YOLOv4 at that size."""

INPUT_SIZES = tuple(ACCURACY)
"""Sides in pixels of the square inputs, ascending."""


def latency_ms(input_size: int, batch: int) -> float:
    """Latency of ``batch`` frames of ``input_size`` x ``input_size`` pixels."""
    quadratic = (0.08315 * input_size**2 - 0.04463 * input_size + 0.03757) / 1000.0
    return max(FLOOR_MS, quadratic) * (0.75 + 0.25 * batch)


def reference_profile(max_batch: int = 8) -> Profile:
    """The formula's profile for batches of 1 to ``max_batch``."""
    return Profile(
        device_kind=KIND,
        variants=tuple(Variant(f"yolov4-{size}", "yolov4", size, "fp16") for size in INPUT_SIZES),
        accuracy=tuple(ACCURACY.values()),
        latency_ms=tuple(tuple(latency_ms(size, batch) for batch in range(1, max_batch + 1)) for size in INPUT_SIZES),
    )
