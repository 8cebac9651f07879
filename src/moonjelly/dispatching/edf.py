"""The default: earliest deadline first, drop before late, batches as large as their most urgent frame allows.

Invariants
* A frame is dropped at the first instant at which it cannot end in time even alone, whatever the device is doing,
  and never before.
* Every frame of a batch ends in time by the profile: the batch is a run of the deadline order and no larger than
  what its first frame allows.
* An idle device with a frame that can make it always runs: a batch that starts now ends before one that starts later,
  and what arrives meanwhile forms the next, larger batch. So nobody ever waits for company.

Near saturation the most urgent frame would force small batches, and small batches lose throughput until everybody is
late. Where the head shrinks the batch and frames would be left over, the dispatcher therefore plays out the queue for
each batch size that is larger: the run may begin behind the hurried frames if that loses fewer frames in all.
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
        latency_ns = plan.active_ns
        drop = hopeless(now_ns, queue, latency_ns[0])
        if drop is not None:
            return drop
        if busy_until_ns is not None or not queue:
            return hopeless_from(queue, latency_ns[0])
        skip, size = choose(now_ns, queue.deadlines_ns(HORIZON_BATCHES * plan.useful_batch), plan)
        return Run(queue.earliest(size, skip), plan.variant, size)

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """Nothing to learn: the profile says it all."""


def choose(now_ns: int, deadlines_ns: Sequence[int], plan: DevicePlan) -> tuple[int, int]:
    """How many of the most urgent frames to pass over, and how many to run.

    Args:
        now_ns: the present.
        deadlines_ns: ascending; the first can be made alone.
        plan: of the device.
    """
    latency_ns = plan.active_ns
    waiting = len(deadlines_ns)
    largest = min(waiting, plan.useful_batch)
    head_size = min(largest, bisect_right(latency_ns, deadlines_ns[0] - now_ns))
    if head_size == largest:
        return 0, head_size
    best = (0, head_size)
    fewest = _lost(now_ns + latency_ns[head_size - 1], deadlines_ns, head_size, latency_ns, plan.useful_batch)
    for size in range(largest, head_size, -1):
        if fewest == 0:
            break
        skip = bisect_left(deadlines_ns, now_ns + latency_ns[size - 1])
        if skip + size > waiting or skip >= fewest:
            continue
        lost = skip + _lost(now_ns + latency_ns[size - 1], deadlines_ns, skip + size, latency_ns, plan.useful_batch)
        if lost < fewest:
            best, fewest = (skip, size), lost
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
