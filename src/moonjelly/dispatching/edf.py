"""The default: earliest deadline first, drop before late, batches as large as their most urgent frame allows.

Invariants
* A frame is dropped at the first instant at which it cannot end in time even alone and with the fastest variant that is
  loaded, whatever the device is doing, and never before.
* Every frame of a batch ends in time by the profile: the batch is a run of the deadline order and no larger than
  what its first frame allows.
* An idle device with a frame that can make it always runs: a batch that starts now ends before one that starts later,
  and what arrives meanwhile forms the next, larger batch. So nobody ever waits for company.

The plan's variant runs, unless playing out the queue shows that frames would be lost. Then there are two ways out.
Near saturation the most urgent frame forces small batches, and small batches lose throughput until everybody is late:
the batch may begin behind the hurried frames. And a frame that the network has delayed may still be answered by a
smaller variant that is loaded: one batch runs with it. The way that loses the fewest frames is taken; among equals the
more accurate variant.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from moonjelly.dispatching.decisions import Decision, DevicePlan, Run, hopeless, hopeless_from
from moonjelly.dispatching.queue import DeadlineQueue, QueuedFrame

HORIZON_BATCHES = 6
"""How many full batches ahead the queue is played out."""


class EdfAdaptive:
    """Earliest deadline first with a batch size chosen by deadline, and by throughput near saturation."""

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        alone_ns = plan.alone_ns
        drop = hopeless(now_ns, queue, alone_ns)
        if drop is not None:
            return drop
        if busy_until_ns is not None or not queue:
            return hopeless_from(queue, alone_ns)
        skip, size, variant = choose(now_ns, queue.deadlines_ns(HORIZON_BATCHES * plan.useful_batch), plan)
        return Run(queue.earliest(size, skip), variant, size)

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn: the profile says it all."""


def choose(now_ns: int, deadlines_ns: Sequence[int], plan: DevicePlan) -> tuple[int, int, int]:
    """How many of the most urgent frames to pass over, how many to run, and with which variant.

    Args:
        now_ns: the present.
        deadlines_ns: ascending; the first can be made alone by some loaded variant.
        plan: of the device.
    """
    latency_ns = plan.active_ns
    waiting = len(deadlines_ns)
    largest = min(waiting, plan.useful_batch)
    head_size = min(largest, bisect_right(latency_ns, deadlines_ns[0] - now_ns))
    best: tuple[int, int, int] | None = None
    fewest = waiting + 1
    if head_size:
        best = (0, head_size, plan.variant)
        if head_size == waiting:
            return best
        fewest = _lost(now_ns + latency_ns[head_size - 1], deadlines_ns, head_size, latency_ns, plan.useful_batch)
    for size in range(largest, head_size, -1):
        if fewest == 0:
            break
        skip = bisect_left(deadlines_ns, now_ns + latency_ns[size - 1])
        if skip + size > waiting or skip >= fewest:
            continue
        lost = skip + _lost(now_ns + latency_ns[size - 1], deadlines_ns, skip + size, latency_ns, plan.useful_batch)
        if lost < fewest:
            best, fewest = (skip, size, plan.variant), lost
    hurried = max(1, bisect_left(deadlines_ns, now_ns + latency_ns[0]))
    for variant in plan.fallbacks:
        quick_ns = plan.latency_ns[variant]
        possible = min(largest, bisect_right(quick_ns, deadlines_ns[0] - now_ns))
        # The hurried alone first: the others deserve the planned variant.
        for size in sorted({min(hurried, possible), possible} - {0}):
            if fewest == 0:
                break
            lost = _lost(now_ns + quick_ns[size - 1], deadlines_ns, size, latency_ns, plan.useful_batch)
            if lost < fewest:
                best, fewest = (0, size, variant), lost
    assert best is not None, "the first frame can be made alone"
    return best


def _lost(now_ns: int, deadlines_ns: Sequence[int], first: int, latency_ns: Sequence[int], largest: int) -> int:
    """Frames from ``first`` on that end late when each batch is as large as its head allows."""
    lost, waiting, alone_ns = 0, len(deadlines_ns), latency_ns[0]
    while first < waiting:
        slack_ns = deadlines_ns[first] - now_ns
        if slack_ns < alone_ns:
            lost += 1
            first += 1
            continue
        size = min(bisect_right(latency_ns, slack_ns, 0, largest), waiting - first)
        now_ns += latency_ns[size - 1]
        first += size
    return lost
