from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from moonjelly.adaptation import PlanView, Stream
from moonjelly.clock import ManualClock
from moonjelly.dispatching import Run
from moonjelly.errors import ConfigError
from moonjelly.network import ClockOffset, FrameSizes, budgets
from moonjelly.on_hand import OnHand
from moonjelly.planning import create_policy
from moonjelly.reference import reference_profile
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S
from network_shaping.traces import Trace
from simulation import systems
from simulation.adapters import JellyfishClient
from simulation.compare import ComparisonOptions, ComparisonRow, Size, table
from simulation.device import InferenceTimes
from simulation.events import Agenda, Left, PingDue, PlanDue, PlanMade
from simulation.fleet import Fleet, SimulatedClient
from simulation.replay import Recording, ask_again, predicted
from simulation.server import SimulatedServer
from simulation.timings import TimingOptions
from simulation.uplink import PAYLOAD_SHARE, Uplink
from simulation.workload import Slowdown, WorkloadOptions, draw

STEADY = Trace.uniform("steady", [8e6])
PROFILE = reference_profile(8)


def megabit_ms(megabits: float, rate_mbps: float) -> float:
    return 1000.0 * megabits / rate_mbps / PAYLOAD_SHARE


class TestUplink:
    def test_bytes_pass_in_order_at_the_rate(self) -> None:
        link = Uplink(STEADY)
        first = link.transmit(0, 10_000)
        second = link.transmit(0, 10_000)
        assert first == pytest.approx(megabit_ms(0.08, 8) * NS_PER_MS, rel=1e-6)
        assert second == pytest.approx(2 * first, rel=1e-6)

    def test_an_idle_link_saves_up_no_more_than_its_bucket(self) -> None:
        link = Uplink(STEADY, bucket_bytes=5_000)
        small, large = round(2_000 * PAYLOAD_SHARE), round(10_000 * PAYLOAD_SHARE)
        assert link.transmit(0, small) == link.transmit(0, small) == 0, "it begins with a full one"
        first = link.transmit(0, large)
        assert first == pytest.approx(9e-3 * NS_PER_S, rel=1e-3)
        second = link.transmit(first, large)
        assert second - first == pytest.approx(10e-3 * NS_PER_S, rel=1e-3), "what follows at once finds it empty"
        later = second + NS_PER_S
        assert link.transmit(later, large) - later == pytest.approx(5e-3 * NS_PER_S, rel=1e-3)

    def test_a_rate_change_takes_effect_in_mid_frame(self) -> None:
        link = Uplink(Trace.uniform("drop", [8e6, 4e6]))
        size = round(1.5e6 / 8 * PAYLOAD_SHARE * 8)
        assert link.transmit(0, size) == pytest.approx(2 * NS_PER_S, rel=1e-3)

    def test_an_outage_holds_everything_until_a_retransmission_gets_through(self) -> None:
        link = Uplink(Trace.uniform("outage", [8e6, 0.0, 8e6, 8e6]))
        # Lost at 1 s; retried after .2, .6 and 1.4 s, of which the last meets a link up since 2 s.
        assert link.transmit(NS_PER_S, 1) == pytest.approx(2.4 * NS_PER_S, rel=1e-3)
        assert not link.is_up(round(1.5 * NS_PER_S))
        assert link.usable_ns(NS_PER_S) == round(2.4 * NS_PER_S)
        assert link.usable_ns(3 * NS_PER_S) == 3 * NS_PER_S

    def test_a_frame_that_an_outage_cuts_goes_on_after_it(self) -> None:
        link = Uplink(Trace.uniform("outage", [8e6, 0.0, 8e6, 8e6]))
        size = round(1e6 * PAYLOAD_SHARE)
        end_ns = link.transmit(NS_PER_S // 2, size)
        assert end_ns is not None
        assert end_ns > 2.4 * NS_PER_S

    def test_a_dead_link_never_delivers_and_a_new_channel_forgets(self) -> None:
        assert Uplink(Trace.uniform("dead", [0.0])).transmit(0, 1) is None
        link = Uplink(STEADY)
        link.transmit(0, 10_000_000)
        link.reset(NS_PER_S)
        assert link.transmit(NS_PER_S, 10_000) == pytest.approx(NS_PER_S + megabit_ms(0.08, 8) * NS_PER_MS, rel=1e-6)


class TestWorkload:
    options = WorkloadOptions(clients=3, fps=(10.0, 29.97), seconds=20.0, warmup_s=2.0)

    def test_a_seed_repeats_and_another_differs(self) -> None:
        one, same, other = (draw(self.options, STEADY, PROFILE, seed) for seed in (1, 1, 2))
        assert np.array_equal(one.clients[0].size_factor, same.clients[0].size_factor)
        assert one.clients[2].first_capture_ns == same.clients[2].first_capture_ns
        assert one.clients[0].first_capture_ns != other.clients[0].first_capture_ns

    def test_rates_and_deadlines_are_dealt_out_in_turn(self) -> None:
        workload = draw(self.options, STEADY, PROFILE, 1)
        assert [client.fps for client in workload.clients] == [10.0, 29.97, 10.0]
        assert workload.clients[1].frames == pytest.approx(22 * 29.97, abs=5)

    def test_sizes_have_the_scale_as_their_mean(self) -> None:
        options = dataclasses.replace(self.options, clients=12, seconds=300.0, frame_scale=0.4)
        factors = np.concatenate([client.size_factor for client in draw(options, STEADY, PROFILE, 1).clients])
        assert factors.mean() == pytest.approx(0.4, rel=0.05)

    def test_churn_replaces_clients_and_keeps_the_place_filled(self) -> None:
        options = dataclasses.replace(self.options, churn_per_min=20.0)
        workload = draw(options, STEADY, PROFILE, 1)
        assert len(workload.clients) > 3
        assert sum(client.leaves_ns - client.joins_ns for client in workload.clients) == pytest.approx(
            3 * 22 * NS_PER_S, rel=1e-6
        )
        assert len({client.client_id for client in workload.clients}) == len(workload.clients)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("clients", 0), ("seconds", -1.0), ("fps", ()), ("slo_ms", (float("nan"),)), ("churn_per_min", -1.0)],
    )
    def test_what_cannot_be_is_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(ConfigError, match=f"'{name}' = "):
            dataclasses.replace(self.options, **{name: value})


class TestSystems:
    def test_parts_default_to_moonjelly(self) -> None:
        assert systems.parse("best-uniform") == systems.System("best-uniform", "edf-adaptive", "moonjelly", 0.9)
        assert systems.parse("sa-dp+jellyfish-fifo+jellyfish").rho == 1.0
        assert systems.parse("multiset+nexus").name == "multiset+nexus+moonjelly"

    @pytest.mark.parametrize("text", ["nothing", "multiset+nothing", "multiset+nexus+nothing"])
    def test_an_unknown_part_says_what_is_known(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"unknown \w+ 'nothing'; known: "):
            systems.parse(text)

    def test_too_many_parts(self) -> None:
        with pytest.raises(ConfigError, match="4 parts"):
            systems.parse("a+b+c+d")


class TestSlowdowns:
    def test_those_of_one_device_multiply_while_they_last(self) -> None:
        options = WorkloadOptions(slowdowns=(Slowdown(0, 1.0, 3.0, 0.5), Slowdown(0, 2.0, 4.0, 0.5)))
        workload = draw(options, Trace.uniform("good", [40e6]), reference_profile(2), seed=1)
        speeds = [workload.speed_at(0, round(at_s * NS_PER_S)) for at_s in (0.0, 1.0, 2.5, 3.0, 4.0)]
        assert speeds == [1.0, 0.5, 0.25, 0.5, 1.0]
        assert workload.speed_at(1, 2 * NS_PER_S) == 1.0

    @pytest.mark.parametrize("wrong", [(-1, 0.0, 1.0, 0.5), (0, 2.0, 1.0, 0.5), (0, 0.0, 1.0, 0.0), (0, 0.0, 1.0, 2.0)])
    def test_an_impossible_one_says_what_is_allowed(self, wrong: tuple[int, float, float, float]) -> None:
        with pytest.raises(ConfigError, match="a begin before its end, and a speed in"):
            Slowdown(*wrong)

    def test_one_of_a_device_that_there_is_not(self) -> None:
        with pytest.raises(ConfigError, match="there are 2 devices, counted from 0"):
            WorkloadOptions(slowdowns=(Slowdown(2, 0.0, 1.0, 0.5),))


def test_inference_times_stay_below_the_profile() -> None:
    times = InferenceTimes(np.random.default_rng(1), ((1_000_000,),), lambda now_ns: 1.0, low=0.9)
    drawn = [times.draw_ns(Run((), 0, 1), 0) for _ in range(3000)]
    assert 900_000 <= min(drawn) < 905_000
    assert 995_000 < max(drawn) <= 1_000_000


@pytest.mark.parametrize(("network_side", "below"), [("jellyfish", 0), ("moonjelly", 1)])
def test_only_the_published_code_plans_on_frames_of_each_variant_s_own_size(network_side: str, below: int) -> None:
    workload = draw(WorkloadOptions(clients=1, fps=(10.0,), slo_ms=(200.0,)), STEADY, PROFILE, seed=1)
    system = systems.System(network=network_side)
    agenda, rows = Agenda(), list[PlanRow]()
    server = SimulatedServer(workload, system, create_policy(system.policy), ManualClock(), agenda, rows.append)
    server.join(workload.clients[0], 0)
    server.sessions[0].bandwidth_bps = 200e6
    due = agenda.pop()
    assert isinstance(due, PlanDue)
    server.plan_due(due.number, agenda.now_ns)
    made = agenda.pop()
    assert isinstance(made, PlanMade)
    (client,) = made.problem.clients
    sizes = FrameSizes().of_variants([variant.input_size for variant in PROFILE.variants])
    own_ms = budgets(200.0, 10.0, sizes, 200e6, workload.timing.rtt_ms, server.overhead_ms)
    assert list(own_ms) == sorted(set(own_ms), reverse=True), "larger frames leave less"
    assert client.budget_ms == pytest.approx([own_ms[max(0, index - below)] for index in range(len(own_ms))])


def test_events_of_one_instant_happen_in_the_order_in_which_they_were_added() -> None:
    agenda = Agenda()
    for number in (3, 1, 2):
        agenda.add(5, Left(number))
    agenda.add(4, Left(0))
    assert [agenda.pop() for _ in range(5)] == [Left(0), Left(3), Left(1), Left(2), None]
    agenda.add(1, Left(9))
    agenda.pop()
    assert agenda.now_ns == 5, "nothing happens in the past"


def comparison(policy: str, ratio: float, proven: bool = True) -> ComparisonRow:
    return ComparisonRow(
        2, 8, 0, policy, 0.4 * ratio, 1.0, 0.4, 0.41, proven, ratio, ratio * 0.4 / 0.41, 1.0, "highs", 9.0
    )


def test_a_comparison_counts_better_equal_and_worse() -> None:
    lines = table([comparison("a", 1.0), comparison("a", 0.98), comparison("a", 1.01, False), comparison("b", 1.0)])
    assert [line.policy for line in lines] == ["a", "b"]
    assert (lines[0].better, lines[0].equal, lines[0].worse, lines[0].proven) == (1, 1, 1, 2)
    assert (lines[0].ratio_min, lines[0].ratio_max) == (0.98, 1.01)
    assert str(lines[0].size) == "2/8"


def test_studies_refuse_unknown_policies_and_empty_ones() -> None:
    size = (Size(2, 8),)
    with pytest.raises(ConfigError, match="unknown planning policy 'best'"):
        ComparisonOptions(size, ("best",), 1, 0)
    with pytest.raises(ConfigError, match="'instances' = 0"):
        ComparisonOptions(size, ("multiset",), 0, 0)
    with pytest.raises(ConfigError, match="'budget_s' = 0"):
        TimingOptions(size, ("multiset",), 1, 0, 0.0)


def served(frame_id: int, group: str, outcome: Outcome, queued_ms: int, waited_ms: float, batch: int) -> ServerFrameRow:
    queued_ns = queued_ms * NS_PER_MS
    infer_ms = PROFILE.latency(0, 1) if batch else 0.0
    return ServerFrameRow(
        1, frame_id, queued_ns, 0.0, 0.0, 0.0, waited_ms, infer_ms, 0.0, 1e6, 1e6, 1000, 100, 1, "", 0, batch, outcome,
        "", queued_ns, queued_ns + 400 * NS_PER_MS, group,
    )  # fmt: skip


def decided(at_ms: int, group: str, ran: int, dropped: int, queue: int, planned_batch: int) -> DispatchRow:
    name = PROFILE.variants[0].name
    infer_ms = PROFILE.latency(0, 1) if ran else 0.0
    return DispatchRow(
        at_ms * NS_PER_MS, 0, name, planned_batch, queue, ran, dropped, 100.0, infer_ms, name, group=group
    )


def test_frames_that_were_withdrawn_leave_a_replay_without_a_decision() -> None:
    """Two of group a wait; the plan turns the device over to group b, which runs one; a client of a comes back."""
    recording = Recording(
        (
            served(1, "a", Outcome.DROPPED, 1, 4.0, 0),
            served(2, "a", Outcome.DROPPED, 2, 3.0, 0),
            served(3, "b", Outcome.ON_TIME, 7, 0.0, 1),
            served(4, "a", Outcome.ON_TIME, 40, 0.0, 1),
        ),
        (decided(5, "a", 0, 2, 2, 0), decided(7, "b", 1, 0, 1, 1), decided(40, "a", 1, 0, 1, 1)),
    )
    profiles = {"a": PROFILE, "b": PROFILE}
    agreement = ask_again(recording, profiles, "edf-adaptive")
    assert (agreement.decisions, agreement.mismatches) == (2, ())
    prediction = predicted(recording, profiles, "edf-adaptive", 1.0, seed=0)
    assert (prediction.ran, prediction.dropped) == (2, 2)


def test_simulated_clients_ping_as_live_ones_do() -> None:
    """Five pings at once over a new connection, then two a second; a connection that is gone carries none."""
    workload = draw(WorkloadOptions(clients=1, seconds=10.0), STEADY, PROFILE, 1)
    (spec,) = workload.clients
    adapter = JellyfishClient(Stream(100.0, 15.0, (128,)), PlanView(False, 0, 1.0, 1.0), 4.0, ClockOffset(0, 1))
    client = SimulatedClient(spec, adapter, Uplink(STEADY), OnHand(spec.slo_ms), np.random.default_rng(1))
    agenda, sent_ms = Agenda(), [0]
    fleet = Fleet({0: client}, PROFILE, workload.timing, 0, agenda, lambda row: None)
    fleet.join(0, 0)
    while client.pings < 7:
        event = agenda.pop()
        if isinstance(event, PingDue):
            sent_ms.append(agenda.now_ns // NS_PER_MS)
            fleet.ping(event.client_id, event.channel, agenda.now_ns)
    assert sent_ms == [0, 20, 40, 60, 80, 580, 1080]
    fleet.ping(0, client.channel + 1, agenda.now_ns)
    assert client.pings == 7
