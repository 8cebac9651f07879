"""Dispatchers of other systems, to compare with.

Written from their papers' and public codes' descriptions. Where a paper leaves open what happens to a frame that can
no longer make it, the frame is dropped as the default dispatcher drops it, so that a comparison is about batching.
Each notes where it deviates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from moonjelly.dispatching.decisions import Decision, DevicePlan, Drop, Run, WaitUntil, forced, hopeless_from
from moonjelly.dispatching.queue import DeadlineQueue, QueuedFrame
from moonjelly.units import ms_to_ns

EARLY_DROP = "dropped early: the batch it would belong to ends after its deadline"


class JellyfishFifo:
    """Jellyfish's executor (RTSS 2022, and its published code): FIFO, the planned batch, lazy drop, padding.

    It looks at the queue only when the device is free. A frame whose remaining time is short of the planned batch's
    latency by more than 3 ms is dropped then; with fewer frames than the planned batch it waits while the tightest of
    them has more than 10 ms to spare; what it runs is padded to the planned batch.

    Args:
        tolerance_ms: shortage that is still run.
        spare_ms: spare time of the tightest frame above which it waits for more.
    """

    def __init__(self, tolerance_ms: float = 3.0, spare_ms: float = 10.0) -> None:
        self._tolerance_ns = ms_to_ns(tolerance_ms)
        self._spare_ns = ms_to_ns(spare_ms)

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        if busy_until_ns is not None or not queue:
            return WaitUntil(None)
        model_ns = plan.active_ns[plan.batch - 1]
        frames = queue.arrivals(plan.batch)
        late = tuple(frame for frame in frames if frame.deadline_ns - now_ns < model_ns - self._tolerance_ns)
        if late:
            return Drop(late, "lazily dropped: less time left than the planned batch takes")
        tightest_ns = min(frame.deadline_ns for frame in frames)
        wait_until_ns = tightest_ns - model_ns - self._spare_ns
        if len(frames) < plan.batch and now_ns < wait_until_ns:
            return WaitUntil(wait_until_ns)
        return Run(frames, plan.variant, plan.batch)

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn."""


class SlackFit:
    """SlackFit-style (SuperServe, NSDI 2025): the head's slack picks a latency bucket, that a variant and a batch.

    Loaded variants count as switchable at once, as in the paper's supernet; others are not looked at. Each bucket
    keeps the tuple with the largest batch, ties by accuracy; the head's slack picks the highest bucket that fits.

    Args:
        buckets: equal latency intervals between the fastest and the slowest tuple.
    """

    def __init__(self, buckets: int = 16) -> None:
        self._buckets = buckets
        self._plan: DevicePlan | None = None
        self._upper_ns: list[int] = []
        self._choices: list[tuple[int, int]] = []

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        decision = forced(now_ns, queue, plan.alone_ns, busy_until_ns)
        if decision is not None:
            return decision
        if plan is not self._plan:
            self._prepare(plan)
        slack_ns = queue.deadlines_ns(1)[0] - now_ns
        bucket = bisect_right(self._upper_ns, slack_ns) - 1
        if bucket < 0:
            variant = min(plan.resident, key=lambda index: plan.latency_ns[index][0])
            return Run(queue.earliest(1), variant, 1)
        variant, batch = self._choices[bucket]
        if batch > len(queue):
            batch = len(queue)
            variant = max(
                (one for one in plan.resident if plan.latency_ns[one][batch - 1] <= self._upper_ns[bucket]),
                key=lambda index: plan.accuracy[index],
            )
        return Run(queue.earliest(batch), variant, batch)

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn."""

    def _prepare(self, plan: DevicePlan) -> None:
        tuples = [
            (latency, batch, plan.accuracy[variant], variant)
            for variant in plan.resident
            for batch, latency in enumerate(plan.latency_ns[variant], start=1)
        ]
        low, high = min(tuples)[0], max(tuples)[0]
        self._upper_ns, self._choices = [], []
        for bucket in range(1, self._buckets + 1):
            upper = low + (high - low) * bucket // self._buckets
            under = low + (high - low) * (bucket - 1) // self._buckets
            inside = [item for item in tuples if item[0] <= upper and (item[0] > under or bucket == 1)]
            if inside:
                _, batch, _, variant = max(inside, key=lambda item: (item[1], item[2]))
                self._upper_ns.append(upper)
                self._choices.append((variant, batch))
        self._plan = plan


class ClipperAimd:
    """Clipper (NSDI 2017): FIFO; the batch cap grows by one after a batch in time, falls to 0.9 after a late one."""

    def __init__(self) -> None:
        self._cap = 1.0

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        decision = forced(now_ns, queue, plan.active_ns[0], busy_until_ns)
        if decision is not None:
            return decision
        self._cap = min(self._cap, float(len(plan.active_ns)))
        frames = queue.arrivals(int(self._cap))
        return Run(frames, plan.variant, len(frames))

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Additive increase, multiplicative decrease."""
        late = any(now_ns > frame.deadline_ns for frame in frames)
        self._cap = max(1.0, 0.9 * self._cap) if late else self._cap + (len(frames) >= int(self._cap))


class DeepRt:
    """DeepRT-style windows (SEC 2021): frames of one time window form a batch that is released at the window's end.

    The window is half of the smallest relative deadline among the frames that wait; released frames run by deadline.
    DeepRT's admission test is the planner's part here.
    """

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        decision = forced(now_ns, queue, plan.active_ns[0], busy_until_ns)
        if decision is not None:
            return decision
        window_ns = max(1, min(frame.deadline_ns - frame.arrived_ns for frame in queue) // 2)
        released = [frame for frame in queue if (frame.arrived_ns // window_ns + 1) * window_ns <= now_ns]
        if not released:
            first_end = min((frame.arrived_ns // window_ns + 1) * window_ns for frame in queue)
            hopeless_at = hopeless_from(queue, plan.active_ns[0]).instant_ns
            return WaitUntil(first_end if hopeless_at is None else min(first_end, hopeless_at))
        batch = tuple(released[: len(plan.active_ns)])
        return Run(batch, plan.variant, len(batch))

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn."""


class NexusEarlyDrop:
    """Nexus's sliding window (SOSP 2019): frames that a full batch would make late are dropped at once.

    The window is the planned batch; it shrinks when fewer frames remain than it holds.
    """

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        latency_ns = plan.active_ns
        decision = forced(now_ns, queue, latency_ns[0], busy_until_ns)
        if decision is not None:
            return decision
        deadlines_ns = queue.deadlines_ns(len(queue))
        skip, batch = 0, min(plan.batch, len(deadlines_ns))
        while deadlines_ns[skip] < now_ns + latency_ns[batch - 1]:
            skip += 1
            batch = min(batch, len(deadlines_ns) - skip)
            if batch == 0:
                return Drop(queue.earliest(skip), EARLY_DROP)
        if skip:
            return Drop(queue.earliest(skip), EARLY_DROP)
        return Run(queue.earliest(batch), plan.variant, batch)

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn."""
