from __future__ import annotations

from dataclasses import replace

import pytest

from moonjelly import dispatching
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Drop, QueuedFrame, Run, WaitUntil
from moonjelly.dispatching.baselines import ClipperAimd
from moonjelly.errors import ProfileError
from moonjelly.profiles import Profile
from moonjelly.tail import Tail
from moonjelly.types import Variant

MS = 1_000_000


def profile(*rows: tuple[float, ...]) -> Profile:
    return Profile(
        "test",
        tuple(Variant(f"v{index}", "m", 32 * (index + 1)) for index in range(len(rows))),
        tuple(0.2 + 0.1 * index for index in range(len(rows))),
        rows,
    )


GPU = profile(tuple(10.0 * (0.75 + 0.25 * batch) for batch in range(1, 9)))
PLAN = DevicePlan.of(GPU, 0, 4)


def queue(*deadlines_ms: float) -> DeadlineQueue:
    return DeadlineQueue(QueuedFrame(key, round(at * MS), 0) for key, at in enumerate(deadlines_ms))


def keys(decision: Run | Drop) -> list[int]:
    return [frame.key for frame in decision.frames]


class TestDeadlineQueue:
    def test_orders_by_deadline_and_remembers_arrival(self) -> None:
        waiting = queue(30, 10, 20)
        assert [frame.key for frame in waiting] == [1, 2, 0]
        assert [frame.key for frame in waiting.arrivals()] == [0, 1, 2]
        assert waiting.head() == QueuedFrame(1, 10 * MS, 0)

    def test_equal_deadlines_go_by_key(self) -> None:
        waiting = DeadlineQueue([QueuedFrame(2, 5, 0), QueuedFrame(1, 5, 0)])
        assert [frame.key for frame in waiting] == [1, 2]
        waiting.take([QueuedFrame(1, 5, 0)])
        assert [frame.key for frame in waiting] == [2]

    def test_a_key_is_there_once(self) -> None:
        waiting = queue(10)
        with pytest.raises(ValueError, match="frame 0 is in the queue already"):
            waiting.push(QueuedFrame(0, 99, 0))
        with pytest.raises(KeyError):
            waiting.take([QueuedFrame(7, 99, 0)])

    def test_a_session_that_leaves_takes_its_frames_along(self) -> None:
        waiting = DeadlineQueue(QueuedFrame(key, 10, 0, stream=key % 2) for key in range(5))
        assert [frame.key for frame in waiting.discard_stream(1)] == [1, 3]
        assert [frame.key for frame in waiting] == [0, 2, 4]


class TestDevicePlan:
    def test_speed_stretches_the_profile(self) -> None:
        assert DevicePlan.of(GPU, 0, 1, speed=0.5).active_ns[0] == 20 * MS

    def test_a_cpu_that_gains_nothing_by_batching_is_given_single_frames(self) -> None:
        linear = profile(tuple(10.0 * batch for batch in range(1, 9)))
        assert DevicePlan.of(linear, 0, 1).useful_batch == 1
        assert DevicePlan.of(linear, 0, 3).useful_batch == 3

    def test_a_gpu_is_given_what_it_can_batch(self) -> None:
        assert PLAN.useful_batch == 8

    @pytest.mark.parametrize(("variant", "batch"), [(1, 1), (0, 0), (0, 9), (-1, 1)])
    def test_what_the_profile_does_not_know_is_refused(self, variant: int, batch: int) -> None:
        with pytest.raises(ProfileError, match="not among them"):
            DevicePlan.of(GPU, variant, batch)


class TestEdfAdaptive:
    def decide(
        self, waiting: DeadlineQueue, now_ms: float = 0.0, busy_until_ms: float | None = None, plan: DevicePlan = PLAN
    ) -> Run | Drop | WaitUntil:
        busy = None if busy_until_ms is None else round(busy_until_ms * MS)
        return dispatching.create().decide(round(now_ms * MS), waiting, plan, busy)

    def test_runs_at_once_by_deadline(self) -> None:
        decision = self.decide(queue(90, 50, 70))
        assert isinstance(decision, Run)
        assert keys(decision) == [1, 2, 0]
        assert decision.padded_batch == 3

    def test_goes_beyond_the_planned_batch_when_the_head_still_makes_it(self) -> None:
        decision = self.decide(queue(*[60.0] * 8))
        assert isinstance(decision, Run)
        assert len(decision.frames) == 8

    def test_the_head_limits_the_batch_when_the_rest_makes_it_too(self) -> None:
        decision = self.decide(queue(12, 60, 60, 60))
        assert isinstance(decision, Run)
        assert keys(decision) == [0]

    def test_a_hurried_head_does_not_cost_two_others(self) -> None:
        """Alone, the head takes 10 ms, and then 24 ms are left for a batch of eight that takes 27.5 ms."""
        decision = self.decide(queue(10, *[34.0] * 8))
        assert isinstance(decision, Run)
        assert keys(decision) == list(range(1, 9))

    def test_near_saturation_the_head_is_served_when_passing_it_over_gains_nothing(self) -> None:
        decision = self.decide(queue(10, *[37.5] * 8))
        assert isinstance(decision, Run)
        assert keys(decision) == [0]

    def test_the_hopeless_are_dropped_with_the_reason_while_a_batch_runs(self) -> None:
        decision = self.decide(queue(9, 8, 50), busy_until_ms=25)
        assert isinstance(decision, Drop)
        assert keys(decision) == [1, 0]
        assert decision.reason == "cannot finish in time: it needs 10.0 ms even alone"

    def test_exactly_in_time_is_in_time(self) -> None:
        assert isinstance(self.decide(queue(10)), Run)
        assert isinstance(self.decide(queue(10), now_ms=0.000001), Drop)

    def test_while_a_batch_runs_it_sleeps_until_the_head_becomes_hopeless(self) -> None:
        waiting = queue(50, 80)
        decision = self.decide(waiting, busy_until_ms=60)
        assert decision == WaitUntil(40 * MS + 1)
        assert isinstance(self.decide(waiting, now_ms=40, busy_until_ms=60), WaitUntil)
        assert isinstance(self.decide(waiting, now_ms=40.000001, busy_until_ms=60), Drop)

    def test_a_plan_change_is_obeyed_at_the_next_decision(self) -> None:
        two = profile((5.0, 6.0), (20.0, 24.0))
        waiting = queue(15)
        assert isinstance(self.decide(waiting, plan=DevicePlan.of(two, 0, 1)), Run)
        assert isinstance(self.decide(waiting, plan=DevicePlan.of(two, 1, 1)), Drop)


class TestJellyfishFifo:
    dispatcher = dispatching.create("jellyfish-fifo")

    def test_waits_for_the_planned_batch_while_ten_ms_are_to_spare(self) -> None:
        waiting = queue(60)
        decision = self.dispatcher.decide(0, waiting, PLAN, None)
        assert decision == WaitUntil(round((60 - 17.5 - 10) * MS))
        later = self.dispatcher.decide(round(32.5 * MS), waiting, PLAN, None)
        assert isinstance(later, Run)
        assert (len(later.frames), later.padded_batch) == (1, 4)

    def test_takes_the_oldest_up_to_the_planned_batch(self) -> None:
        decision = self.dispatcher.decide(0, queue(90, 80, 70, 60, 50, 40), PLAN, None)
        assert isinstance(decision, Run)
        assert keys(decision) == [0, 1, 2, 3]

    def test_drops_lazily_beyond_three_ms(self) -> None:
        decision = self.dispatcher.decide(0, queue(14.4, 14.6), PLAN, None)
        assert isinstance(decision, Drop)
        assert keys(decision) == [0]
        assert self.dispatcher.decide(0, queue(1), PLAN, busy_until_ns=5) == WaitUntil(None)


def test_clipper_grows_by_one_and_shrinks_to_nine_tenths() -> None:
    clipper = ClipperAimd()
    sizes = []
    for late in (False, False, False, True, False):
        decision = clipper.decide(0, queue(*[500.0] * 20), PLAN, None)
        assert isinstance(decision, Run)
        sizes.append(len(decision.frames))
        clipper.finished(501 * MS if late else 1, decision.frames)
    assert sizes == [1, 2, 3, 4, 3]


def test_nexus_drops_what_a_full_batch_would_make_late() -> None:
    decision = dispatching.create("nexus").decide(0, queue(15, 40, 40, 40, 40), PLAN, None)
    assert isinstance(decision, Drop)
    assert keys(decision) == [0]


def test_deeprt_releases_a_window_at_its_end() -> None:
    waiting = DeadlineQueue([QueuedFrame(0, 45 * MS, 5 * MS), QueuedFrame(1, 58 * MS, 18 * MS)])
    dispatcher = dispatching.create("deeprt")
    assert dispatcher.decide(19 * MS, waiting, PLAN, None) == WaitUntil(20 * MS)
    decision = dispatcher.decide(20 * MS, waiting, PLAN, None)
    assert isinstance(decision, Run)
    assert keys(decision) == [0, 1]


def test_slackfit_turns_slack_into_accuracy() -> None:
    plan = DevicePlan.of(profile((5.0, 6.0), (20.0, 24.0)), 0, 1, resident=(0, 1))
    dispatcher = dispatching.create("slackfit")
    hurried = dispatcher.decide(0, queue(8), plan, None)
    relaxed = dispatcher.decide(0, queue(80), plan, None)
    assert isinstance(hurried, Run)
    assert isinstance(relaxed, Run)
    assert (hurried.variant, relaxed.variant) == (0, 1)


class TestFallbacks:
    profile = profile((4.0, 5.0, 6.0, 7.0), (10.0, 12.5, 15.0, 17.5), (20.0, 25.0, 30.0, 35.0))
    plan = DevicePlan.of(profile, 2, 2, resident=(0, 1, 2))

    def run(self, *deadlines_ms: float, plan: DevicePlan | None = None) -> Run:
        decision = dispatching.create().decide(0, queue(*deadlines_ms), plan or self.plan, None)
        assert isinstance(decision, Run)
        return decision

    def test_only_faster_loaded_variants_count_the_most_accurate_first(self) -> None:
        assert self.plan.fallbacks == (1, 0)
        assert DevicePlan.of(self.profile, 1, 1, resident=(0, 2)).fallbacks == (0,)
        assert DevicePlan.of(self.profile, 1, 1).fallbacks == ()

    def test_a_delayed_frame_is_answered_by_the_largest_variant_that_can(self) -> None:
        assert self.run(21).variant == 2
        assert self.run(19).variant == 1
        assert self.run(9).variant == 0

    def test_only_the_hurried_get_the_smaller_variant(self) -> None:
        decision = self.run(11, 80, 80, 80)
        assert (decision.variant, keys(decision)) == (1, [0])

    def test_without_fallbacks_it_is_dropped(self) -> None:
        alone = DevicePlan.of(self.profile, 2, 2)
        decision = dispatching.create().decide(0, queue(19), alone, None)
        assert isinstance(decision, Drop)
        assert decision.reason == "cannot finish in time: it needs 20.0 ms even alone"


class TestReserve:
    profile = TestFallbacks.profile
    plan = replace(TestFallbacks.plan, reserve_ns=3 * MS)

    def run(self, *deadlines_ms: float) -> Run:
        decision = dispatching.create().decide(0, queue(*deadlines_ms), self.plan, None)
        assert isinstance(decision, Run)
        return decision

    def test_batches_that_take_longer_now_and_then_are_given_time_for_it(self) -> None:
        assert self.run(24).variant == 2
        assert self.run(22).variant == 1
        assert self.run(12).variant == 0

    def test_nobody_who_can_be_in_time_pays_for_it(self) -> None:
        assert (self.run(5).variant, keys(self.run(5))) == (0, [0])
        hurried = self.run(5, 80, 80)
        assert (hurried.variant, keys(hurried)) == (0, [0])

    def test_it_comes_in_steps_and_from_more_than_a_stall(self) -> None:
        overruns = Tail()
        for time_ns in (9 * MS, 9 * MS, 9 * MS):
            overruns = overruns.after(time_ns)
        assert TestFallbacks.plan.with_reserve(overruns) is TestFallbacks.plan, "three stalls"
        for time_ns in (round(2.7 * MS), -4 * MS):
            overruns = overruns.after(time_ns)
        assert TestFallbacks.plan.with_reserve(overruns).reserve_ns == round(2.5 * MS)
