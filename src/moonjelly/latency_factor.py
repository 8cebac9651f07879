"""How many batches a frame is planned to take at its device, waiting included: two, and fewer where that is kept.

Two can be promised whatever else is on a device: a frame waits for one whole batch and runs in the next (Jellyfish,
RTSS 2022, section III). On average it waits for half of one. Planned by that, frames may take longer on their links and
accuracy is higher; but then the promise hangs on what the rule does not see: how full the devices are, whether batches
keep to their profile, whether messages come when they are expected. All of it shows in one place: a frame that came to
its device with time enough for the planned variant, and was run by a smaller one or missed. Its promise is *broken*.
So it is where a batch took longer than profiled: what waits behind it has less time than was promised.

Fewer batches are tried where promises are kept, and given up when too many are broken: each broken one takes one from a
budget, each kept one gives :data:`TOLERATED` back. After a trial that failed the next one needs several times as
many kept promises, so that failing trials become rare, and what they cost with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moonjelly.device_speed import FIXED_NS

SAFE = 2.0
"""A frame waits for one batch and runs in the next."""
TRIED = 1.5
"""It waits for half of one."""
TOLERATED = 0.003
"""Share of broken promises at which a trial goes on."""
BUDGET = 4.0
"""So many broken promises beyond that share end it."""
FIRST_FRAMES = 600
"""Kept promises before the first trial: ten seconds of four clients ..."""
BACKOFF = 4
"""... after each trial that failed so many times as many ..."""
MOST_FRAMES = 64 * FIRST_FRAMES
"""... and no more than this."""
OVERRUN = 1.1
"""A batch that takes more than so many times its profiled time does not keep to its profile."""


@dataclass(frozen=True, slots=True)
class Promises:
    """How promises have been kept.

    Attributes:
        trying: whether fewer batches are tried.
        budget: broken promises that the trial may still see.
        kept: promises kept since the last trial, less what broken ones have taken away.
        needed: so many before the next trial.
    """

    trying: bool = False
    budget: float = BUDGET
    kept: float = 0.0
    needed: int = FIRST_FRAMES

    @property
    def latency_factor(self) -> float:
        """Batches to plan with, a frame's own included."""
        return TRIED if self.trying else SAFE


UNKNOWN = Promises()
"""Nothing has been seen."""


def observe(state: Promises, kept: bool) -> Promises:
    """Take in one frame that came to its device with time enough for the planned variant.

    Args:
        state: before.
        kept: the planned variant or a larger one ran it in time, in a batch that kept to its profile.
    """
    if state.trying:
        budget = min(BUDGET, state.budget + TOLERATED) if kept else state.budget - 1.0
        if budget > 0.0:
            return replace(state, budget=budget)
        return Promises(needed=min(MOST_FRAMES, BACKOFF * state.needed))
    seen = state.kept + 1.0 if kept else max(0.0, state.kept - 1.0 / TOLERATED)
    return Promises(trying=seen >= state.needed, kept=seen, needed=state.needed)


def overrun_ns(profiled_ns: int) -> int:
    """How long a batch may take at most to keep to its profile, at the measured speed of its device."""
    return round(OVERRUN * profiled_ns) + FIXED_NS
