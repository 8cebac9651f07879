"""How fast a device is against its profile, from the batches that it runs.

A profile is measured once; the device may be slower now: a throttled GPU, a core shared with a neighbour. Planner and
dispatcher then promise what cannot be kept. They take a *speed*, a factor on the profile; here it is estimated.

What is compared: a profile holds an upper percentile of a batch's time, the load that may be planned is a share of the
throughput at that percentile. A plan holds as long as batches take on average no longer than their profiled upper
percentile. So the *slowdown* is the mean of measured over profiled time, weighted by the profiled time: the lost
capacity. A device that does as profiled measures somewhat below 1, and that margin is what the profile promises: the
speed never goes above 1.

Two kinds of error must not count. What is added to every batch whatever its size (a timer, a wake-up) is no slowdown:
:data:`FIXED_NS` of each measurement is left out. And a stall of one batch says nothing of the next one: a measurement
counts for at most 1.5 times the estimate, so one stall is a small step. But when all batches of a while take longer
than the estimate says, that is no stall: what each of them took is believed at once.

The estimate follows a slower device within a fraction of a second of work, and one that recovers within seconds. It is
rounded to steps of 10 %, with hysteresis, so that plans do not churn. A device that runs nothing (perhaps because at
its estimated speed nothing fits) is not measured: then the estimate slowly returns to 1.
"""

from __future__ import annotations

import math

import msgspec

from moonjelly.units import NS_PER_MS, NS_PER_S

STEP = 0.9
"""Ratio of neighbouring speeds."""
MAX_STEPS = 26
"""The slowest speed is a fifteenth of the profile: twice what the synthetic zoo's variants lie apart."""
FIXED_NS = 3 * NS_PER_MS // 10
"""Of a batch's time, what may be owed to timers and scheduling: some hundred microseconds."""
WINDOW_NS = NS_PER_S // 4
"""Work over which the mean is taken, in profiled time ..."""
MIN_BATCHES = 20
"""... but over no fewer batches than this."""
OPENING = 1.5
"""A measurement counts for no more than this many times what is believed."""
RUN_NS = 3 * NS_PER_S // 20
"""Batches that all take longer than believed count at once after so long ..."""
RUN_BATCHES = 4
"""... and so many of them."""
RUN_EXCESS = 1.1
"""By how much each must exceed what is believed."""
RELEASE_NS = 3 * NS_PER_S // 2
"""Time constant of a recovery."""
IDLE_GRACE_NS = 2 * NS_PER_S
"""What was measured holds for so long without a batch ..."""
IDLE_NS = 10 * NS_PER_S
"""... and is then forgotten with this time constant."""
_TRIP = 1.07
"""A step is left downwards when the slowdown exceeds it by this factor ..."""
_KEEP = 1.02
"""... and a step is enough for a slowdown of this factor above it."""
_LARGEST = STEP**-MAX_STEPS
_SPEEDS = tuple(round(STEP**steps, 3) for steps in range(MAX_STEPS + 1))
"""Rounded, so that a log's digits give the same number again."""
_LOG_STEP = -math.log(STEP)


class _Run(msgspec.Struct, frozen=True):
    """Batches in a row that all took longer than believed.

    Attributes:
        batches: how many.
        lasted_ns: what they took.
        least: measured over profiled time of the fastest of them.
    """

    batches: int = 0
    lasted_ns: int = 0
    least: float = math.inf


_NO_RUN = _Run()


class DeviceSpeed(msgspec.Struct, frozen=True):
    """The estimate of one device.

    Attributes:
        steps: of :data:`STEP` below the profile.
        slowdown: mean of measured over profiled time; below 1 where the profile is generous.
        held: the largest slowdown of late, at least ``slowdown``; falls with :data:`RELEASE_NS`.
        measured_until_ns: end of the latest batch; later when the estimate was forgotten in part since.
        slow_run: batches since the last one that did not take longer than believed.
    """

    steps: int = 0
    slowdown: float = 1.0
    held: float = 1.0
    measured_until_ns: int = 0
    slow_run: _Run = _NO_RUN

    @property
    def speed(self) -> float:
        """Factor on the profile, in (0, 1]."""
        return _SPEEDS[self.steps]

    @property
    def recovers_ns(self) -> int | None:
        """When :func:`recovered` will say a higher speed, if no batch runs before; ``None`` at full speed."""
        if self.steps == 0:
            return None
        enough = _KEEP * STEP ** (1 - self.steps)
        forgetting = max(0.0, math.log((self.held - 1.0) / (enough - 1.0))) if self.held > 1.0 else 0.0
        return self.measured_until_ns + IDLE_GRACE_NS + math.ceil(forgetting * IDLE_NS) + 1


PROFILED = DeviceSpeed()
"""A device that nothing is known of does as its profile says."""


def observe(state: DeviceSpeed, ended_ns: int, measured_ns: int, profiled_ns: int) -> DeviceSpeed:
    """Take in one batch.

    Args:
        state: the estimate so far.
        ended_ns: when the batch ended.
        measured_ns: what it took, by the wall's clock: whoever else used the device counts.
        profiled_ns: what the profile says for its variant and size; positive.
    """
    state = recovered(state, ended_ns - measured_ns)
    known = max(1.0, state.slowdown)
    ratio = max(0, measured_ns - FIXED_NS) / profiled_ns
    believed = min(ratio, OPENING * known, _LARGEST)
    weight = min(1.0 / MIN_BATCHES, profiled_ns * known / WINDOW_NS)
    slowdown = state.slowdown + weight * (believed - state.slowdown)
    run = _NO_RUN
    if ratio > RUN_EXCESS * known:
        before = state.slow_run
        run = _Run(before.batches + 1, before.lasted_ns + measured_ns, min(before.least, ratio, _LARGEST))
        if run.batches >= RUN_BATCHES and run.lasted_ns >= RUN_NS:
            slowdown = max(slowdown, run.least)
    held = slowdown
    if state.held > slowdown:
        passed_ns = max(0, ended_ns - state.measured_until_ns)
        held += (state.held - slowdown) * math.exp(-passed_ns / RELEASE_NS)
    return DeviceSpeed(_steps(held, state.steps), slowdown, held, ended_ns, run)


def recovered(state: DeviceSpeed, now_ns: int) -> DeviceSpeed:
    """The estimate at ``now_ns`` when no batch has run since: what was measured is forgotten slowly."""
    idle_ns = now_ns - state.measured_until_ns - IDLE_GRACE_NS
    if idle_ns <= 0 or state.held <= 1.0:
        return state
    kept = math.exp(-idle_ns / IDLE_NS)
    held = 1.0 + (state.held - 1.0) * kept
    return msgspec.structs.replace(
        state,
        steps=_steps(held, state.steps),
        slowdown=1.0 + (max(1.0, state.slowdown) - 1.0) * kept,
        held=held,
        measured_until_ns=now_ns - IDLE_GRACE_NS,
        slow_run=_NO_RUN,
    )


def _steps(held: float, steps: int) -> int:
    """Where the slowdown ``held`` leads from ``steps``."""
    if held <= _KEEP:
        return 0
    needed = min(MAX_STEPS, math.ceil(math.log(held / _KEEP) / _LOG_STEP))
    if needed > steps and held <= _TRIP * STEP**-steps:
        return steps
    return needed
