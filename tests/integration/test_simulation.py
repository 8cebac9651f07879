"""Whole simulated runs: every part of the library together, small."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from moonjelly import dispatching
from moonjelly.clock import ManualClock
from moonjelly.reference import reference_profile
from moonjelly.summary import Summary
from moonjelly.telemetry import DispatchRow, FrameRow, PlanRow, ServerFrameRow, read_rows
from moonjelly.types import DEFAULT_GROUP, Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S
from network_shaping.traces import Trace
from simulation import compare, replay, study, timings
from simulation.compare import ComparisonOptions, Size
from simulation.engine import Engine, RunRows
from simulation.results import accuracy_as_sized, summary_of, write_run
from simulation.systems import System, parse
from simulation.timings import PlanTime, TimingOptions
from simulation.workload import Slowdown, Workload, WorkloadOptions, draw

PROFILE = reference_profile(12)
GOOD = Trace.uniform("good", [40e6])
OUTAGE = Trace.uniform("outage", [12e6] * 5 + [0.0] * 4 + [12e6] * 11)
OURS = parse("multiset")
JELLYFISH = parse("sa-dp+jellyfish-fifo+jellyfish")


def simulate(
    options: WorkloadOptions, trace: Trace, system: System, seed: int = 1
) -> tuple[Workload, RunRows, Summary]:
    workload = draw(options, trace, PROFILE, seed)
    rows = Engine(workload, system, ManualClock()).run()
    return workload, rows, summary_of(workload, rows, {}, {})


SMALL = WorkloadOptions(clients=3, fps=(15.0, 29.97), slo_ms=(100.0, 150.0), seconds=8.0, warmup_s=2.0)


@pytest.mark.parametrize("system", [OURS, JELLYFISH], ids=lambda system: system.name)
def test_a_seed_repeats_to_the_last_row(system: System) -> None:
    options = dataclasses.replace(SMALL, churn_per_min=10.0)
    first, second = (simulate(options, OUTAGE, system)[1] for _ in range(2))
    assert first == second
    assert simulate(options, OUTAGE, system, seed=2)[1] != first


@pytest.mark.parametrize("dispatcher", dispatching.names())
@pytest.mark.parametrize("network", ["moonjelly", "jellyfish"])
def test_every_frame_has_one_outcome_under_every_dispatcher(dispatcher: str, network: str) -> None:
    _, rows, summary = simulate(SMALL, OUTAGE, System("best-uniform", dispatcher, network))
    assert summary.frames_captured == len(rows.frames)
    assert summary.on_time > 0


def test_clients_that_leave_before_their_first_frame_are_served_like_any_other() -> None:
    options = WorkloadOptions(clients=2, seconds=3.0, warmup_s=0.0, churn_per_min=3000.0)
    workload, rows, summary = simulate(options, GOOD, System("best-uniform"))
    assert any(not client.frames for client in workload.clients), "or this test says nothing"
    assert summary.frames_captured == len(rows.frames) > 0


def test_a_good_link_loses_nothing() -> None:
    _, _, summary = simulate(SMALL, GOOD, OURS)
    assert summary.miss_rate == 0.0
    assert summary.effective_accuracy > 0.4
    assert summary.latency_ms.max is not None
    assert summary.latency_ms.max < 150.0


def test_clients_size_frames_by_the_latency_factor_that_the_server_plans_with() -> None:
    """One variant runs either way; where frames are planned to wait for less, larger ones of it are in time."""
    options, names = dataclasses.replace(SMALL, slo_ms=(75.0,)), [variant.name for variant in PROFILE.variants]
    sized = []
    for factor in (1.2, 2.0):
        system = System("fixed:variant=6", latency_factor=factor)
        _, rows, _ = simulate(options, Trace.uniform("narrow", [12e6]), system)
        answered = [row for row in rows.frames if row.outcome is Outcome.ON_TIME]
        assert {row.used_model for row in answered} == {names[6]}
        sized.append(sum(names.index(row.desired_model) for row in answered) / len(answered))
    assert sized[0] > sized[1]


def test_fewer_batches_are_planned_once_promises_were_kept_and_never_by_the_published_policy() -> None:
    """Where the factor is to be found; by default it is fixed."""
    published = parse("sa-dp+jellyfish-fifo+jellyfish")
    for system, factors in (
        (dataclasses.replace(OURS, latency_factor=None), {2.0, 1.5}),
        (dataclasses.replace(published, latency_factor=None), {2.0}),
        (OURS, {2.0}),
    ):
        _, rows, _ = simulate(dataclasses.replace(SMALL, seconds=20.0), GOOD, system)
        assert {row.latency_factor for row in rows.plans} == factors
        assert rows.plans[0].latency_factor == 2.0


def test_a_slow_client_is_planned_a_variant_that_its_frames_can_be_sized_for() -> None:
    options = dataclasses.replace(SMALL, slo_ms=(100.0,), timing=dataclasses.replace(SMALL.timing, encode_ms=25.0))
    workload, rows, summary = simulate(options, GOOD, OURS)
    assert summary.miss_rate == 0.0
    assert accuracy_as_sized(workload, rows) > 0.95 * summary.effective_accuracy


def test_an_outage_costs_little_more_than_itself() -> None:
    """Four seconds of every twenty are dead; the clients are back within a second and answer nothing stale."""
    options = dataclasses.replace(SMALL, seconds=40.0)
    _, rows, summary = simulate(options, OUTAGE, OURS)
    assert 0.19 < summary.miss_rate < 0.27  # what is captured in the last moments of an outage is still in time
    late = [row.e2e_latency for row in rows.frames if row.outcome is Outcome.LATE and row.e2e_latency is not None]
    assert max(late, default=0.0) < 1000.0
    assert summary.lost > 0


def test_a_frame_captured_in_an_outage_is_sent_at_its_end_while_it_can_make_it() -> None:
    options = dataclasses.replace(SMALL, slo_ms=(600.0,), seconds=14.0)
    workload, rows, summary = simulate(options, OUTAGE, OURS)
    specs = {spec.client_id: spec for spec in workload.clients}

    def captured_in_outage(row: FrameRow) -> bool:
        spec = specs[row.client_id]
        return spec.trace.rate_bps((row.capture_ts - spec.clock_offset_ns) / NS_PER_S) == 0.0

    answered = [row for row in rows.frames if captured_in_outage(row) and row.recv_ts is not None]
    assert len(answered) >= len(specs)
    assert {row.outcome for row in answered} == {Outcome.ON_TIME}
    assert summary.frames_captured == sum(spec.frames for spec in workload.clients) - warm_frames(workload)


def warm_frames(workload: Workload) -> int:
    counted_ns = workload.warmup_s * NS_PER_S
    return sum(spec.captured_ns(frame) < counted_ns for spec in workload.clients for frame in range(spec.frames))


@pytest.mark.parametrize("stop_answers", [True, False])
def test_an_outage_stops_the_way_back_unless_only_what_clients_send_is_dropped(stop_answers: bool) -> None:
    workload = draw(dataclasses.replace(SMALL, seconds=40.0), OUTAGE, PROFILE, 1)
    clients = tuple(dataclasses.replace(spec, outages_stop_answers=stop_answers) for spec in workload.clients)
    rows = Engine(dataclasses.replace(workload, clients=clients), OURS, ManualClock()).run()
    on_its_way_ns = 5 * NS_PER_MS  # what was answered before an outage still comes, a one-way delay into it

    def heard_in_outage(row: FrameRow) -> bool:
        spec = clients[row.client_id]
        if row.recv_ts is None:
            return False
        heard_ns = row.recv_ts - spec.clock_offset_ns
        return all(spec.trace.rate_bps(at_ns / NS_PER_S) == 0.0 for at_ns in (heard_ns, heard_ns - on_its_way_ns))

    assert any(map(heard_in_outage, rows.frames)) is not stop_answers


def test_a_client_is_served_again_soon_after_an_outage_that_tcp_sleeps_over() -> None:
    """Of a second and a half: the retransmission after it comes another one and a half later."""
    trace = Trace.uniform("short", [12e6] * 20 + [0.0] * 3 + [12e6] * 17, 0.5)
    workload, rows, summary = simulate(dataclasses.replace(SMALL, seconds=40.0), trace, OURS)
    assert summary.miss_rate > 0.07, "the outages themselves"
    assert study.miss_rate_outside_outages(workload, rows) < 0.02


def test_devices_as_profiled_are_never_taken_for_slower() -> None:
    believing = dataclasses.replace(OURS, measures_speed=False)
    assert simulate(SMALL, OUTAGE, OURS)[1] == simulate(SMALL, OUTAGE, believing)[1]


def test_a_slower_device_costs_accuracy_instead_of_frames() -> None:
    """Half as fast for five seconds, then as before: from half a second after the change nothing is missed."""
    slow = Slowdown(device=0, begin_s=5.0, end_s=10.0, speed=0.5)
    options = WorkloadOptions(clients=8, devices=1, seconds=18.0, warmup_s=2.0, slowdowns=(slow,))
    workload, rows, _ = simulate(options, GOOD, OURS)
    believing = simulate(options, GOOD, dataclasses.replace(OURS, measures_speed=False))[1]

    def figures(rows: RunRows, begin_s: float, end_s: float) -> tuple[float, float]:
        """Misses and mean accuracy of the frames captured between two instants."""
        captured = {spec.client_id: spec for spec in workload.clients}
        inside = [
            row
            for row in rows.frames
            if begin_s <= captured[row.client_id].captured_ns(row.frame_id) / NS_PER_S < end_s
        ]
        missed = sum(row.outcome is not Outcome.ON_TIME for row in inside)
        return missed / len(inside), sum(row.accuracy for row in inside) / len(inside)

    before, during, after = figures(rows, 2.0, 4.5), figures(rows, 5.5, 10.0), figures(rows, 16.0, 20.0)
    assert before[0] == during[0] == after[0] == 0.0
    assert during[1] < 0.95 * before[1]
    assert after[1] == pytest.approx(before[1], rel=0.01)
    assert figures(believing, 5.5, 10.0)[0] > 0.3
    assert "speed" in {row.trigger for row in rows.plans}
    assert {row.speed for row in rows.dispatches} >= {1.0, 0.9, 0.531}


def test_overload_rejects_by_name_and_serves_the_rest() -> None:
    options = dataclasses.replace(SMALL, clients=30, devices=1, fps=(25.0,), slo_ms=(75.0,), seconds=4.0)
    _, rows, summary = simulate(options, GOOD, OURS)
    rejected = {row.client_id for row in rows.frames if row.outcome is Outcome.REJECTED}
    assert 0 < len(rejected) < 30
    served = [client for client in summary.clients if client.client_id not in rejected]
    assert served
    assert all(client.miss_rate < 0.01 for client in served)


def test_the_logs_are_those_of_a_live_run_and_replay_to_the_same_decisions(tmp_path: Path) -> None:
    options = dataclasses.replace(SMALL, clients=6)
    workload, rows, summary = simulate(options, OUTAGE, OURS)
    write_run(tmp_path, workload, rows, summary)
    assert json.loads((tmp_path / "summary.json").read_text())["frames_captured"] == summary.frames_captured
    server = tmp_path / "logs" / "server"
    assert list(read_rows(server / "dispatch.csv", DispatchRow)) != []
    plans = list(read_rows(server / "plans.csv", PlanRow))
    assert len(plans) == len(rows.plans)
    assert sum(plan.ts >= options.warmup_s * NS_PER_S for plan in plans) == summary.plans.count < len(plans)
    assert len(list(read_rows(server / "frame_stats.csv", ServerFrameRow))) == len(rows.server_frames)
    for client in summary.clients:
        logged = read_rows(tmp_path / "logs" / "client" / f"host_{client.client_id}" / "frame_stats.csv", FrameRow)
        assert sum(row.outcome is Outcome.ON_TIME for row in logged) == client.on_time

    recording = replay.read_recording(server)
    agreement = replay.ask_again(recording, {DEFAULT_GROUP: PROFILE}, OURS.dispatcher)
    assert agreement.decisions > 100
    assert agreement.mismatches == ()
    measured = replay.measured(recording)
    predicted = replay.predicted(recording, {DEFAULT_GROUP: PROFILE}, OURS.dispatcher, 0.98, seed=5)
    assert (predicted.ran, predicted.dropped) == pytest.approx((measured.ran, measured.dropped), abs=2)
    for percentile, value in measured.ms.items():
        assert predicted.ms[percentile] == pytest.approx(value, rel=0.05)


def test_replay_sees_another_dispatcher_and_another_zoo(tmp_path: Path) -> None:
    workload, rows, summary = simulate(SMALL, GOOD, OURS)
    write_run(tmp_path, workload, rows, summary)
    recording = replay.read_recording(tmp_path / "logs" / "server")
    assert replay.ask_again(recording, {DEFAULT_GROUP: PROFILE}, "jellyfish-fifo").share < 1.0
    other = dataclasses.replace(
        PROFILE, variants=tuple(dataclasses.replace(one, name=f"x{one.name}") for one in PROFILE.variants)
    )
    with pytest.raises(replay.ReplayError, match=r"the recording used 'yolov4-\d+'"):
        replay.ask_again(recording, {DEFAULT_GROUP: other}, OURS.dispatcher)
    with pytest.raises(replay.ReplayError, match="cannot be replayed"):
        replay.read_recording(tmp_path)


def test_misses_in_an_outage_are_told_from_others() -> None:
    workload, rows, summary = simulate(dataclasses.replace(SMALL, seconds=40.0), OUTAGE, OURS)
    assert study.miss_rate_outside_outages(workload, rows) < 0.3 * summary.miss_rate


def test_comparing_small_instances() -> None:
    sizes = (Size(2, 8), Size(2, 12))
    options = ComparisonOptions(sizes, ("multiset", "best-uniform"), 2, 3, "highs", 20.0)
    rows = [row for batch in compare.run(options, ManualClock()) for row in batch]
    assert [(row.clients, row.instance, row.policy) for row in rows][:3] == [
        (8, 0, "multiset"),
        (8, 0, "best-uniform"),
        (8, 1, "multiset"),
    ]
    assert all(row.ratio_to_bound <= 1.0 + 1e-6 for row in rows)
    there = {(Size(row.devices, row.clients), row.instance) for row in rows[:4]}
    others = [row for batch in compare.run(options, ManualClock(), there) for row in batch]
    assert [(row.clients, row.instance) for row in others] == [(12, 0)] * 2 + [(12, 1)] * 2


def test_timing_goes_on_within_its_budget() -> None:
    sizes = (Size(2, 8), Size(2, 12))
    left_out: list[tuple[str, Size, int]] = []

    class Ticking:
        instant = 0

        def now_ns(self) -> int:
            Ticking.instant += 400_000_000
            return Ticking.instant

    def timed(there: Sequence[PlanTime] = ()) -> list[PlanTime]:
        left_out.clear()
        clocks = (Ticking(), ManualClock())
        return list(timings.run(options, clocks, lambda *what: left_out.append(what), there))

    options = TimingOptions(sizes, ("multiset",), 5, 0, budget_s=1.0)
    times = timed()
    lines = timings.table(times, instances=5)
    assert [(line.clients, line.instances, line.complete) for line in lines] == [(8, 3, False)]
    assert lines[0].cpu_ms_min == lines[0].cpu_ms_p99 == pytest.approx(400.0)
    assert left_out == [("multiset", Size(2, 8), 2), ("multiset", Size(2, 12), 5)]
    for count in range(4):
        assert times[:count] + timed(times[:count]) == times, "what is there counts towards the budget"
        assert left_out == [("multiset", Size(2, 8), 2), ("multiset", Size(2, 12), 5)]
