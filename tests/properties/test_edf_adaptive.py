"""The default dispatcher's promises, on random queues and profiles."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given, settings

from moonjelly import dispatching
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Drop, QueuedFrame, Run, WaitUntil
from moonjelly.profiles import Profile
from moonjelly.types import Variant

NOW = 10**12
MS = 1_000_000


@st.composite
def plans(draw: st.DrawFn) -> DevicePlan:
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        steps = draw(st.lists(st.floats(0.01, 12.0), min_size=6, max_size=6))
        rows.append(tuple(sum(steps[: batch + 1]) for batch in range(6)))
    profile = Profile(
        "random",
        tuple(Variant(f"v{index}", "m", 32 * (index + 1)) for index in range(len(rows))),
        tuple((index + 1) / 10 for index in range(len(rows))),
        tuple(rows),
    )
    variant = draw(st.integers(0, len(rows) - 1))
    resident = draw(st.sets(st.integers(0, len(rows) - 1)))
    plan = DevicePlan.of(profile, variant, draw(st.integers(1, 6)), 1.0, resident)
    return replace(plan, reserve_ns=draw(st.sampled_from((0, MS // 2, 3 * MS, 20 * MS))))


slacks = st.lists(st.integers(-5 * MS, 90 * MS), min_size=1, max_size=40)


def queue_of(slack_ns: list[int]) -> DeadlineQueue:
    return DeadlineQueue(QueuedFrame(key, NOW + slack, NOW) for key, slack in enumerate(slack_ns))


@settings(max_examples=300, deadline=None)
@given(plan=plans(), slack_ns=slacks)
def test_what_runs_ends_in_time_and_what_is_dropped_could_not(plan: DevicePlan, slack_ns: list[int]) -> None:
    queue = queue_of(slack_ns)
    decision = dispatching.create().decide(NOW, queue, plan, None)
    hopeless = {frame.key for frame in queue if frame.deadline_ns < NOW + plan.alone_ns}
    if hopeless:
        assert isinstance(decision, Drop)
        assert {frame.key for frame in decision.frames} == hopeless
        return
    assert isinstance(decision, Run), "an idle device with a frame that can make it runs"
    ends_ns = NOW + plan.latency_ns[decision.variant][len(decision.frames) - 1]
    assert all(ends_ns <= frame.deadline_ns for frame in decision.frames)
    assert decision.variant in (plan.variant, *plan.fallbacks)
    in_order = list(queue)
    first = in_order.index(decision.frames[0])
    assert list(decision.frames) == in_order[first : first + len(decision.frames)], "a run of the deadline order"


@settings(max_examples=200, deadline=None)
@given(plan=plans(), slack_ns=slacks, busy_ms=st.integers(1, 100))
def test_a_busy_device_wakes_exactly_when_a_frame_becomes_hopeless(
    plan: DevicePlan, slack_ns: list[int], busy_ms: int
) -> None:
    queue = queue_of(slack_ns)
    dispatcher = dispatching.create()
    decision = dispatcher.decide(NOW, queue, plan, NOW + busy_ms * MS)
    if isinstance(decision, Drop):
        queue.take(decision.frames)
        decision = dispatcher.decide(NOW, queue, plan, NOW + busy_ms * MS)
    assert isinstance(decision, WaitUntil)
    if decision.instant_ns is None:
        assert not queue
        return
    assert isinstance(dispatcher.decide(decision.instant_ns - 1, queue, plan, NOW + busy_ms * MS), WaitUntil)
    assert isinstance(dispatcher.decide(decision.instant_ns, queue, plan, NOW + busy_ms * MS), Drop)


@settings(max_examples=200, deadline=None)
@given(plan=plans(), slack_ns=st.lists(st.integers(400 * MS, 900 * MS), min_size=1, max_size=40))
def test_with_time_for_everybody_the_planned_variant_runs_from_the_head(plan: DevicePlan, slack_ns: list[int]) -> None:
    queue = queue_of(slack_ns)
    waiting = len(queue)
    decision = dispatching.create().decide(NOW, queue, plan, None)
    assert isinstance(decision, Run)
    if waiting * plan.active_ns[0] + plan.reserve_ns < 400 * MS:
        assert decision.variant == plan.variant
        assert decision.frames[0] == queue.head()
