"""What a deadline pays beside network, waiting and inference: the server's own share, and the client's."""

from __future__ import annotations

from collections.abc import Iterable

FIXED_OVERHEAD_MS = 2.0
"""Added to the measured times, for all that is not measured (Jellyfish, section III)."""
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


def preparation_beyond_ms(preparation_ms: float) -> float:
    """What planning counts, of a client's time from capture to sending, beside the server's share.

    ``FIXED_OVERHEAD_MS`` of that share is for what the published system does not measure, and at most clients that is
    mostly this: what is known must not be paid twice.
    """
    return max(0.0, preparation_ms - FIXED_OVERHEAD_MS)
