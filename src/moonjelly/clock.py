"""Clocks as an interface, so that tests about seconds take milliseconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds; its zero means nothing."""

    def now_ns(self) -> int:
        """The present instant on this clock."""
        ...


@dataclass(frozen=True, slots=True)
class MonotonicClock:
    """The host's monotonic clock."""

    def now_ns(self) -> int:
        """``time.monotonic_ns()``."""
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class CpuClock:
    """CPU time of this process, so that a busy machine does not count."""

    def now_ns(self) -> int:
        """``time.process_time_ns()``."""
        return time.process_time_ns()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to."""

    instant_ns: int = 0

    def now_ns(self) -> int:
        """The instant it was last moved to."""
        return self.instant_ns

    def advance_ns(self, duration_ns: int) -> None:
        """Move forward by ``duration_ns`` (not negative)."""
        if duration_ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-duration_ns} ns")
        self.instant_ns += duration_ns


@dataclass(frozen=True, slots=True)
class SkewedClock:
    """Another host's clock: a fixed offset and a drift against ``base``, for tests of offset estimation."""

    base: Clock
    offset_ns: int = 0
    drift_ppm: float = 0.0

    def now_ns(self) -> int:
        """``base`` shifted by the offset and stretched by the drift."""
        base_ns = self.base.now_ns()
        return base_ns + self.offset_ns + round(base_ns * self.drift_ppm * 1e-6)
