"""What a client sends and what a server asks for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import pytest

from moonjelly.adaptation import (
    LATENCY_FACTOR,
    MAX_UNACKNOWLEDGED_BYTES,
    STALLED_AFTER_MS,
    PlanView,
    Send,
    Skip,
    SkipReason,
    Stream,
    Unacknowledged,
    decide,
    next_variant,
    stalled,
    unacknowledged_ms,
)
from moonjelly.network import DEFAULT_QUALITY, FrameSizes, LinkEstimate, observe_size, prior_bytes
from moonjelly.units import ClientInstant, ms_to_ns, transfer_ms
from network_shaping.modelled import FrameRecord, LinkModel, drive
from network_shaping.traces import Trace

SIZES = tuple(range(128, 609, 32))
STREAM = Stream(slo_ms=100.0, fps=15.0, input_sizes=SIZES)
PLAN = PlanView(placed=True, variant=15, infer_ms=8.0, overhead_ms=4.0)
CONTENT = 0.4
"""Ordinary footage compresses 2.5 times better than the prior says."""


def now(ms: float = 1_000.0) -> ClientInstant:
    return ClientInstant(ms_to_ns(ms))


def link(bandwidth_bps: float = 30e6, age_ms: float = 20.0, proven_bytes: float = 1e6) -> LinkEstimate:
    return LinkEstimate(
        bandwidth_bps=bandwidth_bps,
        deviation=0.05,
        proven_bytes=proven_bytes,
        rtt_ms=10.0,
        jitter_ms=0.5,
        age_ms=age_ms,
        measured_age_ms=age_ms,
    )


def learnt(content: float = CONTENT) -> FrameSizes:
    sizes = FrameSizes()
    for _ in range(50):
        sizes = observe_size(sizes, 320, DEFAULT_QUALITY, round(prior_bytes(320) * content))
    return sizes


def choose(
    estimate: LinkEstimate,
    in_flight: tuple[Unacknowledged, ...] = (),
    plan: PlanView = PLAN,
    stream: Stream = STREAM,
    age_ms: float = 0.0,
    margin_ms: float = 0.0,
) -> Send | Skip:
    captured = now(1_000.0 - age_ms)
    return decide(stream, plan, estimate, in_flight, learnt(), captured, now(), margin_ms=margin_ms)


class TestDecide:
    def test_a_good_link_carries_the_plan(self) -> None:
        decision = choose(link(100e6))
        assert isinstance(decision, Send)
        assert (decision.variant, decision.jpeg_quality) == (15, DEFAULT_QUALITY)
        assert decision.expected_bytes == pytest.approx(CONTENT * prior_bytes(608), rel=0.05)

    def test_never_above_the_plan(self) -> None:
        decision = choose(link(100e6), plan=PlanView(True, 4, 8.0, 4.0))
        assert isinstance(decision, Send)
        assert decision.variant == 4

    def test_a_plan_of_a_larger_zoo_is_bounded_by_the_sizes(self) -> None:
        decision = choose(link(500e6), plan=PlanView(True, 99, 8.0, 4.0))
        assert isinstance(decision, Send)
        assert decision.variant == 15

    def test_size_goes_first_then_quality_then_frames(self) -> None:
        decisions = [choose(link(rate)) for rate in (60e6, 20e6, 8e6, 3e6, 1e6, 0.5e6, 0.3e6, 0.05e6)]
        sent = [decision for decision in decisions if isinstance(decision, Send)]
        variants = [decision.variant for decision in sent]
        qualities = [decision.jpeg_quality for decision in sent]
        assert variants == sorted(variants, reverse=True)
        assert qualities == sorted(qualities, reverse=True)
        assert all(quality == DEFAULT_QUALITY for variant, quality in zip(variants, qualities, strict=True) if variant)
        assert min(qualities) < DEFAULT_QUALITY
        assert decisions[-1] == Skip(SkipReason.DEADLINE)

    def test_what_is_sent_arrives_with_time_to_wait_and_infer(self) -> None:
        for rate_bps in (60e6, 20e6, 8e6, 3e6):
            decision = choose(link(rate_bps))
            assert isinstance(decision, Send)
            after_ms = decision.arrives_in_ms + 5.0 + LATENCY_FACTOR * PLAN.infer_ms + PLAN.overhead_ms
            assert after_ms <= STREAM.slo_ms

    def test_time_kept_free_makes_frames_smaller_and_skips_none(self) -> None:
        for rate_bps in (8e6, 3e6, 1e6, 0.5e6):
            plain, careful = choose(link(rate_bps)), choose(link(rate_bps), margin_ms=25.0)
            assert isinstance(plain, Send)
            assert isinstance(careful, Send)
            assert careful.arrives_in_ms <= plain.arrives_in_ms
            if rate_bps == 8e6:
                assert careful.variant < plain.variant

    def test_a_server_that_lets_frames_wait_longer_gets_smaller_ones(self) -> None:
        decisions = [choose(link(20e6), plan=dataclasses.replace(PLAN, latency_factor=factor)) for factor in (2, 8, 10)]
        chosen = [decision.variant for decision in decisions if isinstance(decision, Send)]
        assert len(set(chosen)) == 3
        assert chosen == sorted(chosen, reverse=True)

    def test_the_nominal_rate_is_sustained(self) -> None:
        """A lax deadline would allow frames that the link cannot carry at this rate."""
        stream = Stream(slo_ms=1_000.0, fps=25.0, input_sizes=SIZES)
        decision = choose(link(8e6), stream=stream)
        assert isinstance(decision, Send)
        assert decision.expected_bytes * 8 * 25.0 <= 8e6

    def test_a_queue_shrinks_the_next_frame(self) -> None:
        waiting = (Unacknowledged(60_000, now(990.0)), Unacknowledged(60_000, now(995.0)))
        free, behind = choose(link(18e6)), choose(link(18e6), waiting)
        assert isinstance(free, Send)
        assert isinstance(behind, Send)
        assert behind.expected_bytes < free.expected_bytes
        assert behind.arrives_in_ms > transfer_ms(120_000, 18e6) - 10.0

    def test_a_frame_that_cannot_arrive_behind_the_queue_is_skipped(self) -> None:
        waiting = tuple(Unacknowledged(60_000, now(970.0 + index)) for index in range(6))
        assert choose(link(20e6), waiting) == Skip(SkipReason.QUEUE)

    def test_a_frame_that_is_already_old_is_skipped(self) -> None:
        assert choose(link(60e6), age_ms=95.0) == Skip(SkipReason.DEADLINE)

    def test_an_overdue_acknowledgement_shows_a_drop(self) -> None:
        """20 kB should have been acknowledged after 26 ms; after 60 ms the link cannot be what it was."""
        on_time = choose(link(10e6), (Unacknowledged(20_000, now(984.0)),))
        overdue = choose(link(10e6), (Unacknowledged(20_000, now(940.0)),))
        assert isinstance(on_time, Send)
        assert isinstance(overdue, Skip) or overdue.expected_bytes < on_time.expected_bytes / 2

    def test_an_overdue_frame_is_taken_to_need_as_long_again(self) -> None:
        """40 kB on their way for 49 ms of a link that should have carried them in 32: 49 more, not 17."""
        overdue = (Unacknowledged(40_000, now(940.0)),)
        decision = choose(link(10e6), overdue)
        assert isinstance(decision, Send)
        assert decision.arrives_in_ms >= 49.0

    def test_a_link_that_dropped_still_gets_a_small_frame_behind_an_overdue_one(self) -> None:
        """What has crossed the link already does not count against the next frame."""
        overdue = (Unacknowledged(60_000, now(905.0)),)
        decision = choose(link(20e6), overdue)
        assert isinstance(decision, Send)
        assert decision.variant == 0

    def test_the_unacknowledged_bytes_are_bounded(self) -> None:
        """However fast the link seems and however far the deadline."""
        stream = Stream(slo_ms=10_000.0, fps=15.0, input_sizes=SIZES)
        waiting = (Unacknowledged(MAX_UNACKNOWLEDGED_BYTES - 1_000, now(999.0)),)
        assert isinstance(choose(link(1e9), waiting, stream=stream), Skip)

    def test_a_link_that_is_not_known_gets_one_small_frame_at_a_time(self) -> None:
        unknown = LinkEstimate()
        first = choose(unknown)
        assert isinstance(first, Send)
        assert first.variant == 0
        assert choose(unknown, (Unacknowledged(4_000, now(990.0)),)) == Skip(SkipReason.UNPROVEN)

    def test_growth_is_by_steps_that_were_delivered(self) -> None:
        proven = CONTENT * prior_bytes(128)
        decision = choose(link(100e6, proven_bytes=proven))
        assert isinstance(decision, Send)
        assert 0 < decision.variant < 5

    def test_a_zoo_with_large_steps_is_climbed(self) -> None:
        """64 -> 128 has four times the bytes: more than the growth, but one step."""
        stream = Stream(100.0, 15.0, (64, 128, 320))
        decision = choose(link(100e6, proven_bytes=CONTENT * prior_bytes(64)), stream=stream)
        assert isinstance(decision, Send)
        assert decision.variant == 1

    def test_a_dead_estimate_is_probed(self) -> None:
        assert isinstance(choose(link(1_000.0, age_ms=100.0)), Skip)
        assert isinstance(choose(link(1_000.0, age_ms=800.0)), Send)

    def test_but_not_by_a_frame_that_has_waited(self) -> None:
        def again(estimate: LinkEstimate) -> Send | Skip:
            return decide(STREAM, PLAN, estimate, (), learnt(), now(940.0), now(), probing=False)

        assert again(link(1_000.0, age_ms=800.0)) == Skip(SkipReason.DEADLINE)
        assert isinstance(again(link(30e6, age_ms=800.0)), Send), "it will be in time"

    def test_the_link_can_lift_what_it_stands_in_the_way_of(self) -> None:
        lasting = {SkipReason.REJECTED, SkipReason.DEADLINE}
        assert {reason for reason in SkipReason if not reason.may_pass} == lasting

    def test_a_stall_of_the_encoder_does_not_end_sending(self) -> None:
        """Frames that took longer than the deadline say little of the next one, and a skipped one is a sure miss."""

        def chosen(likely_encode_ms: float | None) -> Send | Skip:
            return decide(STREAM, PLAN, link(100e6), (), learnt(), now(), now(), 110.0, likely_encode_ms)

        assert chosen(None) == Skip(SkipReason.DEADLINE)
        assert chosen(95.0) == Skip(SkipReason.DEADLINE)
        decision = chosen(2.0)
        assert isinstance(decision, Send)
        assert decision.variant == 0
        assert decision.arrives_in_ms < 20.0

    def test_a_rejected_client_sends_nothing(self) -> None:
        assert choose(link(), plan=PlanView(False, 0, 0.0, 0.0)) == Skip(SkipReason.REJECTED)


class TestStalled:
    def test_a_link_that_answers_is_not(self) -> None:
        assert not stalled(link(), (), now())

    def test_a_link_never_heard_is_not_judged(self) -> None:
        assert not stalled(LinkEstimate(), (Unacknowledged(1, now(0.0)),), now(60_000.0))

    def test_overdue_answers_stall_it(self) -> None:
        waiting = (Unacknowledged(10_000, now(500.0)),)
        assert stalled(link(age_ms=480.0), waiting, now())
        assert choose(link(age_ms=480.0), waiting) == Skip(SkipReason.STALLED)

    def test_a_slow_frame_is_not_a_stall(self) -> None:
        """100 kB at 1 Mbit/s take 0.8 s."""
        waiting = (Unacknowledged(100_000, now(500.0)),)
        assert not stalled(link(1e6, age_ms=480.0), waiting, now())

    def test_what_is_unacknowledged_takes_its_time_on_a_known_link(self) -> None:
        waiting = (Unacknowledged(10_000, now(500.0)), Unacknowledged(20_000, now(600.0)))
        assert unacknowledged_ms(link(1e6), waiting) == pytest.approx(240.0)
        assert unacknowledged_ms(link(1e6), ()) == 0.0
        assert unacknowledged_ms(LinkEstimate(), waiting) == 0.0


class TestNextVariant:
    BUDGETS = (80.0, 70.0, 50.0, 20.0, 0.0)

    def test_the_plan_where_it_fits(self) -> None:
        assert next_variant(2, self.BUDGETS, 25.0) == 2

    def test_lowered_to_what_fits(self) -> None:
        assert next_variant(4, self.BUDGETS, 20.0) == 2

    def test_never_above_the_plan(self) -> None:
        assert next_variant(1, self.BUDGETS, 1.0) == 1

    def test_the_smallest_where_nothing_fits(self) -> None:
        assert next_variant(4, (0.0,) * 5, 20.0) == 0


def on_time(record: FrameRecord, stream: Stream = STREAM) -> bool:
    """With one and a half inferences of waiting and running."""
    share_s = (1.5 * PLAN.infer_ms + PLAN.overhead_ms) / 1e3 + 0.005
    return record.arrived_s + share_s - record.captured_s <= stream.slo_ms / 1e3


def encoded(number: int, input_size: int, quality: int) -> int:
    """Sizes that wander by a few percent, the same in every run."""
    return max(600, round(prior_bytes(input_size, quality) * CONTENT * (1.0 + 0.05 * math.sin(1.7 * number))))


def run(rates_mbit: list[float], step_s: float, burst_bytes: int = 0, stream: Stream = STREAM) -> list[FrameRecord]:
    trace = Trace.uniform("test", [rate * 1e6 for rate in rates_mbit], step_s)
    model = LinkModel(trace, burst_bytes, one_way_s=0.005, jitter_s=0.0005)
    records: Iterator[FrameRecord] = drive(stream, PLAN, model, encoded, len(rates_mbit) * step_s)
    return sorted(records, key=lambda record: record.captured_s)


def between(records: list[FrameRecord], start_s: float, end_s: float) -> list[FrameRecord]:
    return [record for record in records if start_s <= record.captured_s < end_s]


class TestClosedLoop:
    """Estimation and adaptation together, over a modelled link."""

    def test_a_steady_link_misses_nothing_and_reaches_the_plan(self) -> None:
        records = run([30.0], 20.0)
        assert all(on_time(record) for record in records)
        settled = between(records, 1.0, 20.0)
        assert all(isinstance(record.decision, Send) and record.decision.variant == 15 for record in settled)

    @pytest.mark.parametrize("burst_bytes", [0, 5_000, 10_000])
    def test_a_drop_costs_few_frames(self, burst_bytes: int) -> None:
        records = between(run([20.0, 4.0], 5.0, burst_bytes), 5.0, 10.0)
        assert sum(not on_time(record) for record in records) <= 3

    @pytest.mark.parametrize(("burst_bytes", "low_mbit"), [(0, 0.3), (0, 1.0), (8_000, 0.3), (8_000, 1.0)])
    def test_it_is_back_within_two_seconds_of_a_recovery(self, burst_bytes: int, low_mbit: float) -> None:
        records = run([20.0, low_mbit, 20.0], 5.0, burst_bytes)
        back = between(records, 12.0, 15.0)
        assert all(isinstance(record.decision, Send) and record.decision.variant >= 13 for record in back)
        assert all(on_time(record) for record in back)

    def test_an_outage_ends_with_the_first_answers(self) -> None:
        records = run([20.0, 0.0, 20.0], 5.0)
        assert all(on_time(record) for record in between(records, 12.0, 15.0))
        silent = between(records, 8.0, 10.0)
        assert all(record.decision == Skip(SkipReason.STALLED) for record in silent)

    def test_frames_in_flight_stay_few(self) -> None:
        """No more than are captured until the link counts as stalled."""
        records = run([20.0, 1.0, 5.0, 0.0, 10.0, 2.0], 4.0)
        assert max(record.in_flight for record in records) <= 1 + STALLED_AFTER_MS * STREAM.fps / 1_000.0

    def test_a_poor_link_still_gets_frames_through(self) -> None:
        """0.4 Mbit/s carry 15 frames of 128 pixels only at a low quality."""
        records = between(run([0.4], 20.0), 3.0, 20.0)
        assert sum(on_time(record) for record in records) > 0.8 * len(records)
        assert any(isinstance(record.decision, Send) and record.decision.jpeg_quality < 90 for record in records)

    def test_a_run_repeats(self) -> None:
        assert run([20.0, 3.0], 3.0) == run([20.0, 3.0], 3.0)

    def test_a_link_with_a_large_round_trip_works(self) -> None:
        trace = Trace.uniform("test", [20e6])
        model = LinkModel(trace, one_way_s=0.025, jitter_s=0.002)
        stream = Stream(150.0, 15.0, SIZES)
        records = list(itertools.islice(drive(stream, PLAN, model, encoded, 10.0), 150))
        late = [record for record in records if record.arrived_s + 0.045 - record.captured_s > 0.150]
        assert len(late) <= 1
