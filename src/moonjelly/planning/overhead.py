"""What a deadline pays beside network, waiting and inference: the server's own share."""

from __future__ import annotations

from collections.abc import Iterable

from moonjelly.network import FIXED_OVERHEAD_MS

MAX_MEASURED_MS = 20.0
"""What is measured beyond that is a hiccup; planning for it would lower every client."""
_SMOOTHING = 0.5
"""Jellyfish's weight of the newest sample of the server's own times."""


def smoothed_ms(before_ms: float, sample_ms: float) -> float:
    """The measured time after one more sample.

    A server that stood still for a second must not believe that answering takes as long: no frame would be in time, so
    none would run, and nothing would be measured that could teach it better.
    """
    return before_ms + _SMOOTHING * (min(sample_ms, MAX_MEASURED_MS) - before_ms)


def overhead_ms(measured_ms: Iterable[float]) -> float:
    """What planning counts, of the smoothed times of the devices that serve: the worst of them."""
    return max(measured_ms, default=0.0) + FIXED_OVERHEAD_MS
