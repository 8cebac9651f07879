"""What every registered dispatcher must do, whatever its batching."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from moonjelly import dispatching
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Drop, QueuedFrame, Run, WaitUntil
from moonjelly.errors import ConfigError
from moonjelly.profiles import Profile
from moonjelly.types import Variant

PROFILE = Profile(
    "test",
    tuple(Variant(f"v{index}", "m", 64 * (index + 1)) for index in range(3)),
    (0.2, 0.3, 0.4),
    tuple(tuple(base * (0.75 + 0.25 * batch) for batch in range(1, 7)) for base in (4.0, 8.0, 16.0)),
)
MS = 1_000_000

frames = st.lists(
    st.tuples(st.integers(-20 * MS, 120 * MS), st.integers(0, 40 * MS), st.integers(0, 3)), min_size=0, max_size=24
)
names = pytest.mark.parametrize("name", dispatching.names())


def queue_of(entries: list[tuple[int, int, int]], now_ns: int) -> DeadlineQueue:
    ordered = sorted(entries, key=lambda entry: -entry[1])
    return DeadlineQueue(
        QueuedFrame(key, now_ns + slack, now_ns - age, stream) for key, (slack, age, stream) in enumerate(ordered)
    )


@names
@settings(max_examples=60, deadline=None)
@given(entries=frames, variant=st.integers(0, 2), batch=st.integers(1, 6), resident=st.frozensets(st.integers(0, 2)))
def test_an_idle_device_settles_every_frame_and_repeats_itself(
    name: str, entries: list[tuple[int, int, int]], variant: int, batch: int, resident: frozenset[int]
) -> None:
    """Draining a queue ends, each frame leaves exactly once, what runs is loaded, the same inputs decide the same."""
    plan = DevicePlan.of(PROFILE, variant, batch, resident=resident)
    assert drain(name, entries, plan) == drain(name, entries, plan)


def drain(name: str, entries: list[tuple[int, int, int]], plan: DevicePlan) -> list[object]:
    now_ns = 1_000 * MS
    queue = queue_of(entries, now_ns)
    waiting = {frame.key for frame in queue}
    dispatcher = dispatching.create(name)
    decisions: list[object] = []
    while queue:
        before = list(queue)
        decision = dispatcher.decide(now_ns, queue, plan, None)
        assert list(queue) == before, "a decision never changes the queue"
        decisions.append(decision)
        if isinstance(decision, WaitUntil):
            assert decision.instant_ns is not None, "an idle device with frames never sleeps for ever"
            assert decision.instant_ns > now_ns, "no busy loop"
            now_ns = decision.instant_ns
            continue
        keys = [frame.key for frame in decision.frames]
        assert keys
        assert len(set(keys)) == len(keys)
        assert waiting.issuperset(keys)
        waiting.difference_update(keys)
        queue.take(decision.frames)
        if isinstance(decision, Run):
            assert len(keys) <= decision.padded_batch <= PROFILE.max_batch
            assert decision.variant in plan.resident
            now_ns += plan.latency_ns[decision.variant][decision.padded_batch - 1]
            dispatcher.finished(now_ns, decision.frames)
        else:
            assert decision.reason
    assert not waiting
    return decisions


@names
@settings(max_examples=40, deadline=None)
@given(entries=frames)
def test_a_busy_device_is_never_told_to_run(name: str, entries: list[tuple[int, int, int]]) -> None:
    now_ns = 1_000 * MS
    queue = queue_of(entries, now_ns)
    plan = DevicePlan.of(PROFILE, 1, 3)
    decision = dispatching.create(name).decide(now_ns, queue, plan, now_ns + 5 * MS)
    assert isinstance(decision, Drop | WaitUntil)


@names
def test_an_empty_queue_waits_for_an_arrival(name: str) -> None:
    decision = dispatching.create(name).decide(0, DeadlineQueue(), DevicePlan.of(PROFILE, 0, 1), None)
    assert decision == WaitUntil(None)


def test_an_unknown_name_and_an_unknown_option_say_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown dispatcher 'edf'.*edf-adaptive"):
        dispatching.create("edf")
    with pytest.raises(ConfigError, match=r"slackfit.*holes"):
        dispatching.create("slackfit", holes=3)
