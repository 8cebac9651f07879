"""The tail of a time that is measured again and again: one rule, live and simulated.

A mean says what to plan with. Whoever must be in time, and now, asks what hardly anything exceeds: on a host whose
processors are shared, a batch that takes 5 ms on average takes 10 ms every twentieth time, and an answer that takes
0.3 ms is now and then held up for 3 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.units import NS_PER_MS

WINDOW = 64
"""Times that are remembered."""
BEYOND = 3
"""So many of them may lie beyond the tail: one in twenty, and no single stall makes a tail."""
MOST_NS = 20 * NS_PER_MS
"""What lies beyond that is a hiccup of the host; who kept that much free would never be in time."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Of the latest :data:`WINDOW` times.

    Attributes:
        recent_ns: those times, the oldest first; none below 0, none above :data:`MOST_NS`.
        ns: exceeded by at most :data:`BEYOND` of them; 0 while there are no more than that.
    """

    recent_ns: tuple[int, ...] = ()
    ns: int = 0

    def after(self, time_ns: int) -> Tail:
        """With one more time; below 0 it counts as 0."""
        latest_ns = min(max(0, time_ns), MOST_NS)
        recent_ns = (*self.recent_ns[1 - WINDOW :], latest_ns)
        if len(self.recent_ns) == WINDOW:
            gone_ns = self.recent_ns[0]
            if latest_ns == gone_ns or (latest_ns <= self.ns and gone_ns < self.ns):
                return Tail(recent_ns, self.ns)  # most often: spares every batch and answer the sorting
        return Tail(recent_ns, sorted(recent_ns)[-1 - BEYOND] if len(recent_ns) > BEYOND else 0)


NO_TAIL = Tail()
"""Before anything is measured."""
