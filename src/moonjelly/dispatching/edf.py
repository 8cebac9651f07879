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

Where batches lately took longer than expected now and then, each way ends that much (:attr:`DevicePlan.reserve_ns`)
before its first deadline; for a frame that cannot be answered so, all ways that end in time count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from moonjelly.dispatching.decisions import Decision, DevicePlan, Run, forced
from moonjelly.dispatching.queue import DeadlineQueue, QueuedFrame

HORIZON_BATCHES = 3
"""How many full batches ahead the queue is played out."""


class EdfAdaptive:
    """Earliest deadline first with a batch size chosen by deadline, and by throughput near saturation."""

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """See :class:`~moonjelly.dispatching.decisions.Dispatcher`."""
        decision = forced(now_ns, queue, plan.alone_ns, busy_until_ns)
        if decision is not None:
            return decision
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
    if waiting <= plan.useful_batch and now_ns + plan.reserve_ns + latency_ns[waiting - 1] <= deadlines_ns[0]:
        return (0, waiting, plan.variant)  # all of them, and in time: most often
    best, fewest = (0, 0, plan.variant), waiting + 1
    for skip, size, variant in _ways(now_ns, deadlines_ns, plan):
        ends_ns = now_ns + plan.latency_ns[variant][size - 1]
        lost = _lost(ends_ns, deadlines_ns, skip + size, latency_ns, plan.useful_batch, skip, fewest)
        if lost < fewest:
            best, fewest = (skip, size, variant), lost
            if lost == 0:
                break
    return best


def _ways(now_ns: int, deadlines_ns: Sequence[int], plan: DevicePlan) -> Iterator[tuple[int, int, int]]:
    """What may be done, the best when nobody is lost first: (frames passed over, batch, variant)."""
    latency_ns = plan.active_ns
    slack_ns = deadlines_ns[0] - now_ns - plan.reserve_ns
    largest = min(len(deadlines_ns), plan.useful_batch)
    head_size = min(largest, bisect_right(latency_ns, slack_ns))
    if head_size:
        yield 0, head_size, plan.variant
    for size in (largest, (largest + head_size + 1) // 2):
        if size > head_size:
            skip = bisect_left(deadlines_ns, now_ns + plan.reserve_ns + latency_ns[size - 1])
            if skip + size <= len(deadlines_ns):
                yield skip, size, plan.variant
    # The hurried alone first: the others deserve the planned variant.
    hurried = min(largest, max(1, bisect_left(deadlines_ns, now_ns + plan.reserve_ns + latency_ns[0])))
    able = [variant for variant in plan.fallbacks if plan.latency_ns[variant][0] <= slack_ns]
    if not head_size and not able:
        slack_ns += plan.reserve_ns
        able = [one for one in (plan.variant, *plan.fallbacks) if plan.latency_ns[one][0] <= slack_ns]
    for variant in dict.fromkeys((*able[:1], *able[len(able) // 2 :][:1], *able[-1:])):
        possible = min(largest, bisect_right(plan.latency_ns[variant], slack_ns))
        if hurried < possible:
            yield 0, hurried, variant
        yield 0, possible, variant


def _lost(
    now_ns: int, deadlines_ns: Sequence[int], first: int, latency_ns: Sequence[int], largest: int, lost: int, limit: int
) -> int:
    """``lost``, and the frames from ``first`` on that end late when each batch is as large as its head allows.

    Counts no further than ``limit``.
    """
    waiting, alone_ns = len(deadlines_ns), latency_ns[0]
    while first < waiting and lost < limit:
        slack_ns = deadlines_ns[first] - now_ns
        if slack_ns < alone_ns:
            lost += 1
            first += 1
            continue
        size = min(bisect_right(latency_ns, slack_ns, 0, largest), waiting - first)
        now_ns += latency_ns[size - 1]
        first += size
    return lost
