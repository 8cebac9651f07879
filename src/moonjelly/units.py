"""Units: what a number means is in its name or in its type.

Instants are integer nanoseconds of one host's monotonic clock. The instants of two hosts are different
types: only the clock-offset estimator (:mod:`moonjelly.network`) converts between them.
Durations are ``float`` milliseconds (``_ms``) or ``int`` nanoseconds (``_ns``); rates are bit/s (``_bps``).
"""

from __future__ import annotations

from typing import NewType

ClientInstant = NewType("ClientInstant", int)
"""Nanoseconds on a client's monotonic clock."""

ServerInstant = NewType("ServerInstant", int)
"""Nanoseconds on the server's monotonic clock."""

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
BITS_PER_MBIT = 1_000_000


def ms_to_ns(duration_ms: float) -> int:
    """Milliseconds to whole nanoseconds."""
    return round(duration_ms * NS_PER_MS)


def ns_to_ms(duration_ns: int) -> float:
    """Nanoseconds to milliseconds."""
    return duration_ns / NS_PER_MS


def transfer_ms(size_bytes: float, rate_bps: float) -> float:
    """Time to serialise ``size_bytes`` on a link of ``rate_bps``; infinite on a dead link."""
    return size_bytes * 8_000.0 / rate_bps if rate_bps > 0 else float("inf")
