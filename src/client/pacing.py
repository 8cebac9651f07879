"""The nominal rate: which frames a camera captures, and when.

Every nominal tick is a captured frame, also one that the client was too slow to take: whoever falls behind does not
look better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moonjelly.clock import Clock
from moonjelly.units import NS_PER_S, ClientInstant

_EXACT = 1e-9
"""20 s at 29.97 fps are 599 frames, 10 s at 0.1 fps are one: rounding errors of the product do not count."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ticks of a camera.

    Attributes:
        start: of tick 0.
        fps: nominal rate.
        count: number of ticks; ``None``: for ever.
    """

    start: ClientInstant
    fps: float
    count: int | None = None

    def instant(self, tick: int) -> ClientInstant:
        """When tick ``tick`` is captured. Computed from the start, so that rounding does not add up."""
        return ClientInstant(self.start + round(tick * NS_PER_S / self.fps))


def tick_count(seconds: float | None, fps: float) -> int | None:
    """Whole frames of ``seconds`` at ``fps``; ``None`` for ever."""
    return None if seconds is None else math.floor(seconds * fps + _EXACT)


def ticks_after(warmup_s: float, seconds: float, fps: float) -> int:
    """Frames of a run of ``warmup_s + seconds`` at ``fps`` that are captured once the warm-up is over."""
    return max(0, math.floor((warmup_s + seconds) * fps + _EXACT) - math.ceil(warmup_s * fps - _EXACT))


class Pacer:
    """Walks a schedule on a clock."""

    def __init__(self, schedule: Schedule, clock: Clock) -> None:
        self.schedule = schedule
        self._clock = clock
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether every tick was handed out."""
        return self.schedule.count is not None and self._next >= self.schedule.count

    def wait_s(self) -> float:
        """Seconds until the next tick is due; 0 when one is."""
        return max(0, self.schedule.instant(self._next) - self._clock.now_ns()) / NS_PER_S

    def due(self) -> list[int]:
        """Ticks due now, oldest first, each handed out once. All but the last were missed."""
        now = self._clock.now_ns()
        ticks = []
        while not self.finished and self.schedule.instant(self._next) <= now:
            ticks.append(self._next)
            self._next += 1
        return ticks


def source_index(tick: int, fps: float, rate_fps: float | None) -> int:
    """Frame of a recording shown at ``tick``: the one on screen then when it plays at its own rate.

    Args:
        tick: of the schedule.
        fps: nominal rate of the client.
        rate_fps: the recording's own rate; ``None`` (pictures without time): one after the other.
    """
    return tick if rate_fps is None else math.floor(tick * rate_fps / fps + _EXACT)
