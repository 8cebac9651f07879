"""The tail of a time that is measured again and again: one rule, live and simulated.

A mean says what to plan with. Whoever must be in time, and now, asks what hardly anything exceeds: on a host whose
processors are shared, a batch that takes 5 ms on average takes 10 ms every twentieth time, and an answer that takes
0.3 ms is now and then held up for 3 ms.
"""

from __future__ import annotations

import msgspec

from moonjelly.units import NS_PER_MS

WINDOW = 64
"""Times that are remembered."""
BEYOND = 3
"""So many of them may lie beyond the tail: one in twenty, and no single stall makes a tail."""
STEP_NS = NS_PER_MS // 10
"""Times are remembered in whole steps of this, a byte each: what every batch and every answer copies stays small."""
MOST_NS = 20 * NS_PER_MS
"""What lies beyond that is a hiccup of the host; who kept that much free would never be in time."""


class Tail(msgspec.Struct, frozen=True):
    """Of the latest :data:`WINDOW` times.

    Attributes:
        recent: those times, the oldest first, in steps of :data:`STEP_NS` rounded down; none above :data:`MOST_NS`.
        ns: exceeded by at most :data:`BEYOND` of them; 0 while there are no more than that.
    """

    recent: bytes = b""
    ns: int = 0

    def after(self, time_ns: int) -> Tail:
        """With one more time; below 0 it counts as 0."""
        latest = min(max(0, time_ns), MOST_NS) // STEP_NS
        recent = self.recent[1 - WINDOW :] + _BYTES[latest]
        if len(self.recent) == WINDOW:
            gone, tail = self.recent[0], self.ns // STEP_NS
            if latest == gone or (latest <= tail and gone < tail):
                return Tail(recent, self.ns)  # most often: spares every batch and answer the sorting
        return Tail(recent, sorted(recent)[-1 - BEYOND] * STEP_NS if len(recent) > BEYOND else 0)


_BYTES = tuple(bytes((step,)) for step in range(MOST_NS // STEP_NS + 1))
NO_TAIL = Tail()
"""Before anything is measured."""
