"""How often devices have changed what they run of late: a plan that follows every flicker of a link never rests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moonjelly.planning.problem import Device
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
        devices: that were planned for then.
    """

    count: float = 0.0
    at_ns: int = 0
    devices: tuple[Device, ...] = ()

    def per_min(self, now_ns: int) -> float:
        """Changes per device and minute of late."""
        return self._left(now_ns) * _WINDOWS_PER_MIN

    def after(self, changes: int, devices: Sequence[Device], now_ns: int) -> RecentChanges:
        """The count after ``changes`` on ``devices`` at ``now_ns``.

        Where the devices themselves have changed (one is slower, back or gone), changes are called for and not counted.
        """
        called_for = tuple(devices) != self.devices
        counted = 0.0 if called_for else changes / max(len(devices), 1)
        return RecentChanges(self._left(now_ns) + counted, now_ns, tuple(devices))

    def _left(self, now_ns: int) -> float:
        return self.count * math.exp(-max(0, now_ns - self.at_ns) / WINDOW_NS)
