"""How often devices have changed what they run of late: a plan that follows every flicker of a link never rests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moonjelly.units import NS_PER_S

WINDOW_NS = 15 * NS_PER_S
"""Time constant with which changes are forgotten: a few swings of a link."""
_WINDOWS_PER_MIN = 60 * NS_PER_S / WINDOW_NS


@dataclass(frozen=True, slots=True)
class RecentChanges:
    """A count that forgets.

    Attributes:
        count: changes per device, each less by ``exp(-age / WINDOW_NS)``.
        at_ns: the instant of ``count``.
    """

    count: float = 0.0
    at_ns: int = 0

    def per_min(self, now_ns: int) -> float:
        """Changes per device and minute of late."""
        return self._left(now_ns) * _WINDOWS_PER_MIN

    def after(self, changes: int, devices: int, now_ns: int) -> RecentChanges:
        """The count after ``changes`` on ``devices`` at ``now_ns``."""
        return RecentChanges(self._left(now_ns) + changes / max(devices, 1), now_ns)

    def _left(self, now_ns: int) -> float:
        return self.count * math.exp(-max(0, now_ns - self.at_ns) / WINDOW_NS)
