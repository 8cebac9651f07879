"""The server's deciding core, driven without sockets, processes or clocks."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from moonjelly.latency_factor import FIRST_FRAMES, SAFE, TRIED
from moonjelly.network import DEFAULT_RESPONSE_BYTES
from moonjelly.planning import create_policy
from moonjelly.planning.cadence import MIN_INTERVAL_NS
from moonjelly.profiles import Profile
from moonjelly.rpc import messages
from moonjelly.telemetry import SCHEMA_VERSION, DispatchRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome, Variant
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant
from server import ipc
from server.core import Core, sessions
from server.core import events as ev
from server.core.executors import HANG_NS
from server.core.frames import WATCH_GRACE_NS
from server.core.placement import OVERHEAD_STEP_MS, Rules, budget_of
from server.core.planner import PLANNER_PATIENCE_NS
from server.core.settings import Settings
from server.records import RESULT_BYTES
from server.report import summarise

LATENCY_MS = (5.0, 10.0, 20.0)
SIZES = (64, 96, 128)
PROFILE = Profile(
    "paper-gpu",
    tuple(Variant(f"net-{size}", "net", size) for size in SIZES),
    (0.2, 0.3, 0.4),
    tuple(tuple(alone * (0.75 + 0.25 * batch) for batch in range(1, 5)) for alone in LATENCY_MS),
)
ZOO = messages.ZooInfo(
    "paper", "default", tuple(messages.ZooVariant(f"net-{size}", size, 0.2) for size in SIZES), ("car",)
)
START_NS = 100 * NS_PER_S
T = TypeVar("T")


def settings(**changes: Any) -> Settings:
    base = Settings(
        zoos={"default": ZOO},
        rules=Rules({("paper-gpu", "default"): PROFILE}, 2.0, 0.9),
        speeds=[1.0, 1.0],
        slots=4,
        policy="best-uniform",
        interval_ns=NS_PER_S // 2,
        plan_budget_ns=NS_PER_S // 4,
        session_ttl_ns=10 * NS_PER_S,
        max_sessions=3,
        max_frame_bytes=1000,
        max_outstanding=3,
    )
    return replace(base, **changes)


@dataclass
class World:
    """A core, its clock, and what it wanted done."""

    core: Core
    now_ns: int = START_NS
    done: list[ev.Instruction] = field(default_factory=list)

    def emit(self, event: ev.Event) -> list[ev.Instruction]:
        out = self.core.handle(event, self.now_ns)
        self.done += out
        return out

    def all(self, kind: type[T]) -> list[T]:
        return [one for one in self.done if isinstance(one, kind)]

    def sent(self, stream: int, kind: type[T]) -> list[T]:
        return [s.item for s in self.all(ev.Send) if s.stream == stream and isinstance(s.item, kind)]

    def rows(self, kind: type[T]) -> list[T]:
        return [row for row in (record.make() for record in self.all(ev.Record)) if isinstance(row, kind)]

    def up(self, *devices: int) -> None:
        for device in devices:
            self.emit(ev.DeviceUp(device, "paper-gpu", "default"))
        self.plan()

    def plan(self) -> None:
        """Answer planning requests as the planner process would, until none is open or waits for its turn."""
        answered = None
        while True:
            request = self.all(ev.AskPlanner)[-1].request
            if request is not answered:
                plan = create_policy("best-uniform").plan(request.problem)
                self.emit(ev.PlanMade(ipc.PlanReply(request.run, plan, "", 1.0)))
                answered = request
                continue
            wake_ns = self.core.wake_ns()
            if wake_ns is None or wake_ns > self.now_ns + MIN_INTERVAL_NS:
                return
            self.pass_ms((wake_ns - self.now_ns) / NS_PER_MS)

    def join(self, stream: int, **changes: Any) -> messages.Welcome | None:
        fields: dict[str, Any] = {"name": "cam", "slo_ms": 100.0, "fps": 10.0, "bandwidth_bps": 50e6}
        self.emit(ev.Joined(stream, messages.Hello(**(fields | changes)), bytes([stream]) * 16))
        welcomes = self.sent(stream, messages.Welcome)
        return welcomes[-1] if welcomes else None

    def frame(self, stream: int, frame_id: int, **changes: Any) -> list[ev.Instruction]:
        captured = ClientInstant(self.now_ns - 2 * NS_PER_MS)
        fields: dict[str, Any] = {
            "frame_id": frame_id, "captured_ns": captured, "sent_ns": captured, "width": 64, "height": 64,
            "variant": 0, "quality": 90, "bandwidth_bps": 50e6, "rtt_ms": 2.0, "server_minus_client_ns": 0,
            "offset_bound_ns": 1, "data": b"x" * 100,
        }  # fmt: skip
        return self.emit(ev.FrameReceived(stream, messages.Frame(**(fields | changes)), self.now_ns))

    def plan_of(self, stream: int) -> messages.PlanUpdate:
        """What a client was told last of its place."""
        updates = self.sent(stream, messages.PlanUpdate)
        return updates[-1] if updates else self.sent(stream, messages.Welcome)[-1].plan

    def result(self, stream: int, frame_id: int) -> messages.Result:
        found = [r for r in self.sent(stream, messages.Result) if r.frame_id == frame_id]
        assert len(found) == 1, f"{len(found)} results for frame {frame_id}"
        return found[0]

    def finish(
        self,
        *submits: ev.SubmitFrame | ev.MoveFrame,
        outcome: Outcome = Outcome.ON_TIME,
        ended_ns: int | None = None,
        ran_ms: float = 0.0,
    ) -> None:
        """Answer submitted frames as their executor would, which ended them at ``ended_ns``, by default now."""
        answers = tuple(
            ipc.Answer(
                s.submit.key, outcome, "" if outcome is Outcome.ON_TIME else "no",
                messages.PackedDetections(1, b"box"), self.now_ns, 0,
            )
            for s in submits
        )  # fmt: skip
        ran = len(answers) if outcome is Outcome.ON_TIME else 0
        now = self.now_ns if ended_ns is None else ended_ns
        began = now - round(ran_ms * NS_PER_MS)
        self.emit(
            ev.BatchFinished(
                ipc.Batch(submits[0].device, "default", 1, 1, (0,), 2, 3, 4.0, 0.9, 0, began, began, now, ran, answers)
            )
        )

    def pass_ms(self, duration_ms: float) -> None:
        """Move the clock, waking the core when it wants to be."""
        end_ns = self.now_ns + round(duration_ms * NS_PER_MS)
        while (wake_ns := self.core.wake_ns()) is not None and wake_ns <= end_ns:
            self.now_ns = max(self.now_ns, wake_ns)
            self.emit(ev.Woken())
        self.now_ns = end_ns


@pytest.fixture
def world() -> World:
    """Two devices, up for a while."""
    made = World(Core(settings()), START_NS - NS_PER_S)
    made.up(0, 1)
    made.now_ns = START_NS
    return made


class TestJoining:
    def test_a_newcomer_is_welcomed_and_placed_at_once(self, world: World) -> None:
        welcome = world.join(1)
        assert welcome is not None
        assert welcome.plan.placed
        assert not welcome.resumed
        assert (welcome.zoo, welcome.max_frame_bytes, welcome.max_outstanding) == (ZOO, 1000, 3)

    def test_the_plan_follows_and_raises_the_variant(self, world: World) -> None:
        world.join(1)
        world.plan()
        (update,) = world.sent(1, messages.PlanUpdate)
        assert update.placed
        assert update.variant == 2
        assert update.infer_ms == pytest.approx(20.0)

    @pytest.mark.parametrize(
        ("changes", "code", "text"),
        [
            ({"slo_ms": 0.0}, "INVALID_ARGUMENT", r"slo_ms is 0.0; it must be in \(0, 60000\]"),
            ({"slo_ms": float("nan")}, "INVALID_ARGUMENT", "slo_ms is nan"),
            ({"fps": -1.0}, "INVALID_ARGUMENT", "fps is -1.0; it must be in"),
            ({"fps": float("inf")}, "INVALID_ARGUMENT", "fps is inf"),
            ({"group": "boats"}, "INVALID_ARGUMENT", "model group 'boats' is unknown; this server has default"),
            ({"protocol_version": 9}, "INVALID_ARGUMENT", "protocol version 9; this server speaks 1"),
            ({"resume_token": b"?"}, "UNAUTHENTICATED", "the resume token is unknown"),
        ],
    )
    def test_what_cannot_be_served_is_refused_in_words(
        self, world: World, changes: dict[str, Any], code: str, text: str
    ) -> None:
        assert world.join(1, **changes) is None
        (error,) = world.sent(1, messages.StreamError)
        assert error.fatal
        assert error.code == code
        assert re.search(text, error.message)
        assert world.all(ev.EndStream) == [ev.EndStream(1)]

    def test_the_number_of_sessions_is_limited(self, world: World) -> None:
        for stream in (1, 2, 3):
            assert world.join(stream) is not None
        assert world.join(4) is None
        (error,) = world.sent(4, messages.StreamError)
        assert error.code == "RESOURCE_EXHAUSTED"
        assert "3 sessions, its limit" in error.message

    def test_clients_that_vanish_keep_nobody_out_and_cost_no_camera_its_session(self, world: World) -> None:
        camera = world.join(1)
        assert camera is not None
        world.frame(1, 1)
        world.emit(ev.StreamClosed(1))
        for stream in range(2, 20):
            assert world.join(stream) is not None
            world.emit(ev.StreamClosed(stream))
        back = world.join(20, resume_token=camera.token)
        assert back is not None
        assert (back.session_id, back.resumed) == (camera.session_id, True)

    def test_of_cameras_that_were_lost_the_first_one_gives_way(self, world: World) -> None:
        welcomes = [world.join(stream) for stream in (1, 2, 3)]
        for stream in (2, 1):
            world.frame(stream, 1)
            world.emit(ev.StreamClosed(stream))
            world.pass_ms(10)
        assert world.join(4) is not None
        tokens = [welcome.token for welcome in welcomes if welcome is not None]
        assert world.join(5, resume_token=tokens[0]) is not None
        assert world.join(6, resume_token=tokens[1]) is None
        assert world.sent(6, messages.StreamError)[0].code == "UNAUTHENTICATED"

    def test_a_client_without_room_is_rejected_at_once_and_placed_when_there_is_room(self, world: World) -> None:
        for stream in (1, 2):
            world.join(stream, fps=350.0, slo_ms=1000.0)
        world.plan()
        welcome = world.join(3, fps=350.0, slo_ms=1000.0)
        world.plan()
        assert welcome is not None
        plan = world.sent(3, messages.PlanUpdate)[-1] if world.sent(3, messages.PlanUpdate) else welcome.plan
        assert not plan.placed
        assert plan.reason
        world.frame(3, 1)
        assert world.result(3, 1).outcome is Outcome.REJECTED
        assert world.result(3, 1).reason == plan.reason
        world.emit(ev.ByeReceived(1))
        world.plan()
        assert world.sent(3, messages.PlanUpdate)[-1].placed

    def test_a_client_whose_link_is_too_poor_is_served_without_a_promise(self, world: World) -> None:
        world.join(1, bandwidth_bps=1000.0)
        world.plan()
        update = world.sent(1, messages.PlanUpdate)[-1]
        assert update.placed
        assert update.variant == 0
        assert "without a promise" in update.reason


class TestFrames:
    @pytest.fixture(autouse=True)
    def _joined(self, world: World) -> None:
        world.join(1)
        world.plan()

    def test_a_frame_is_acknowledged_submitted_and_answered_once(self, world: World) -> None:
        world.frame(1, 1)
        (ack,) = world.sent(1, messages.Ack)
        assert (ack.frame_id, ack.received_ns, ack.size_bytes) == (1, START_NS, 100)
        (submit,) = world.all(ev.SubmitFrame)
        assert submit.submit.length == 100
        assert START_NS + 90 * NS_PER_MS < submit.submit.deadline_ns < START_NS + 98 * NS_PER_MS
        world.now_ns += 10 * NS_PER_MS
        world.finish(submit)
        result = world.result(1, 1)
        assert result.outcome is Outcome.ON_TIME
        assert result.packed == messages.PackedDetections(1, b"box")
        assert result.variant == 1
        assert result.next_variant == 2
        (row,) = world.rows(ServerFrameRow)
        assert row.outcome is Outcome.ON_TIME
        assert row.used_model == "net-96"
        assert row.deadline_ts == submit.submit.deadline_ns
        (decision,) = world.rows(DispatchRow)
        assert (decision.batch, decision.queue, decision.variant) == (1, 3, "net-96")
        assert (decision.planned_variant, decision.fallbacks) == ("net-96", "net-64")

    def test_an_overdue_frame_is_answered_whatever_its_device_does(self, world: World) -> None:
        world.frame(1, 1)
        (submit,) = world.all(ev.SubmitFrame)
        deadline_ns = START_NS - 2 * NS_PER_MS + 100 * NS_PER_MS - 1 * NS_PER_MS  # capture + SLO - half the round trip
        world.pass_ms((deadline_ns + WATCH_GRACE_NS - START_NS) / NS_PER_MS - 0.01)
        assert not world.sent(1, messages.Result)
        world.pass_ms(0.02)
        result = world.result(1, 1)
        assert result.outcome is Outcome.DROPPED
        assert result.reason == "its deadline passed while it waited for device 0"
        world.finish(submit)
        assert world.result(1, 1) is result
        assert world.core.pending_frames == 0

    def test_an_answer_within_the_grace_is_late_not_lost(self, world: World) -> None:
        world.frame(1, 1)
        world.now_ns += 98 * NS_PER_MS
        world.finish(*world.all(ev.SubmitFrame))
        result = world.result(1, 1)
        assert result.outcome is Outcome.LATE
        assert result.reason == "1.0 ms after its deadline"
        assert result.packed == messages.PackedDetections(1, b"box")

    def test_after_a_second_in_which_the_server_stood_still_frames_have_their_time_again(self, world: World) -> None:
        """The answers that lay there meanwhile seemed to take a second to send."""
        for frame_id in (1, 2, 3):
            world.frame(1, frame_id)
        submits = world.all(ev.SubmitFrame)
        ended_ns = world.now_ns + 5 * NS_PER_MS
        world.now_ns += NS_PER_S
        for submit in submits:
            world.finish(submit, ended_ns=ended_ns)
        world.frame(1, 4)
        left_ms = (world.all(ev.SubmitFrame)[-1].submit.deadline_ns - world.now_ns) / NS_PER_MS
        assert left_ms > 70.0, "of 100"

    def test_a_frame_that_arrives_after_its_deadline_is_dropped_at_once(self, world: World) -> None:
        world.frame(1, 1, captured_ns=ClientInstant(START_NS - 150 * NS_PER_MS))
        assert world.result(1, 1).reason == "its deadline passed on the way: capture to reception took 150.0 ms"
        assert not world.all(ev.SubmitFrame)

    def test_without_an_offset_the_uplink_is_estimated(self, world: World) -> None:
        nowhere = ClientInstant(7)
        world.frame(
            1, 1, captured_ns=nowhere, sent_ns=nowhere, server_minus_client_ns=None, bandwidth_bps=100e3, rtt_ms=10.0
        )
        (submit,) = world.all(ev.SubmitFrame)
        uplink_ms = 5.0 + 100 * 8 / 100e3 * 1000
        expected_ns = START_NS + round((100.0 - uplink_ms - 5.0) * NS_PER_MS)
        assert submit.submit.deadline_ns == pytest.approx(expected_ns, abs=1000)

    @pytest.mark.parametrize(("ids", "wrong"), [((1, 1), 1), ((5, 4), 4), ((0,), 0)])
    def test_ids_must_increase(self, world: World, ids: tuple[int, ...], wrong: int) -> None:
        for frame_id in ids:
            world.frame(1, frame_id)
        (error,) = world.sent(1, messages.StreamError)
        assert not error.fatal
        assert error.frame_id == wrong
        assert error.message.startswith(f"frame id {wrong} after")
        assert [ack.frame_id for ack in world.sent(1, messages.Ack)] == list(ids[:-1])

    def test_too_large_a_frame_costs_only_itself(self, world: World) -> None:
        world.frame(1, 1, data=b"x" * 1001)
        (error,) = world.sent(1, messages.StreamError)
        assert (error.code, error.frame_id, error.fatal) == ("RESOURCE_EXHAUSTED", 1, False)
        assert error.message == "frame of 1001 bytes; at most 1000 are accepted"
        world.frame(1, 2)
        assert len(world.all(ev.SubmitFrame)) == 1

    def test_an_unknown_variant_fails_that_frame(self, world: World) -> None:
        world.frame(1, 1, variant=3)
        assert world.result(1, 1).outcome is Outcome.FAILED
        assert world.result(1, 1).reason == "unknown variant 3; the zoo has 0 to 2"

    def test_outstanding_frames_are_limited_per_client(self, world: World) -> None:
        for frame_id in (1, 2, 3, 4):
            world.frame(1, frame_id)
        assert world.result(1, 4).reason == "3 frames of this client wait already"
        world.join(2)
        world.frame(2, 1)
        assert not world.sent(2, messages.Result)

    def test_a_full_device_drops_and_frees(self, world: World) -> None:
        world.join(2)
        world.join(3)
        first = world.core.sessions.get(1)
        assert first is not None
        for session in world.core.sessions:
            session.plan = first.plan
        for stream in (1, 2, 3):
            for frame_id in (1, 2):
                world.frame(stream, frame_id)
        assert world.result(3, 1).reason == "device 0 holds 4 frames, its limit"
        world.finish(*world.all(ev.SubmitFrame))
        world.frame(3, 3)
        assert len(world.all(ev.SubmitFrame)) == 5

    def test_a_worse_link_lowers_the_next_size_and_asks_for_a_plan(self, world: World) -> None:
        runs = world.core.plans
        world.frame(1, 1, data=b"x" * 900, bandwidth_bps=200e3)
        world.finish(*world.all(ev.SubmitFrame))
        assert world.result(1, 1).next_variant < 2
        assert world.core.plans == runs, "a plan was made just now"
        world.pass_ms(MIN_INTERVAL_NS / NS_PER_MS)
        assert world.core.plans == runs + 1
        world.plan()
        assert world.rows(PlanRow)[-1].trigger == "bandwidth"

    def test_a_variant_is_planned_on_frames_of_the_next_smaller_size(self, world: World) -> None:
        session = world.core.sessions.get(1)
        assert session is not None
        (client,) = world.all(ev.AskPlanner)[-1].request.problem.clients
        own_ms = budget_of(session, SIZES, 50e6, world.all(ev.Send)[-1].item.overhead_ms)
        assert client.budget_ms == pytest.approx((own_ms[0], own_ms[0], own_ms[1]))
        assert own_ms[0] > own_ms[1] > own_ms[2]

    def test_the_measured_size_of_answers_is_planned_with(self, world: World) -> None:
        budgets = []
        for frame_id in range(1, 60):
            world.frame(1, frame_id, bandwidth_bps=1e6)
            world.finish(world.all(ev.SubmitFrame)[-1])
            world.pass_ms(500)
            world.plan()
            (client,) = world.all(ev.AskPlanner)[-1].request.problem.clients
            budgets.append(client.budget_ms[0])
        session = world.core.sessions.get(1)
        assert session is not None
        assert session.response_bytes == pytest.approx(RESULT_BYTES + len(b"box"), rel=0.05)
        saved_ms = (DEFAULT_RESPONSE_BYTES - RESULT_BYTES) * 8 / 1e6 * 1000
        assert budgets[-1] - budgets[0] > 0.8 * saved_ms

    def test_what_a_client_takes_before_it_sends_is_planned_with(self, world: World) -> None:
        (client,) = world.all(ev.AskPlanner)[-1].request.problem.clients
        before_ms = client.budget_ms
        for frame_id in range(1, 60):
            sent = world.now_ns - NS_PER_MS
            world.frame(1, frame_id, captured_ns=ClientInstant(sent - 20 * NS_PER_MS), sent_ns=ClientInstant(sent))
            world.finish(world.all(ev.SubmitFrame)[-1])
            world.pass_ms(100)
        world.pass_ms(500)
        world.plan()
        (client,) = world.all(ev.AskPlanner)[-1].request.problem.clients
        lost_ms = [before - after for before, after in zip(before_ms, client.budget_ms, strict=True)]
        assert all(15.0 < lost < 25.0 for lost in lost_ms), "20 ms at the client less the fixed 2, and the round trip"

    def test_a_client_hears_when_the_server_s_own_share_has_changed(self, world: World) -> None:
        """Its place stays, and it would go on sizing its frames for what was there at its beginning."""

        def told_after(respond_ms: float) -> list[float]:
            told = len(world.sent(1, messages.PlanUpdate))
            world.frame(1, next(ids))
            world.finish(world.all(ev.SubmitFrame)[-1], ended_ns=world.now_ns - round(respond_ms * NS_PER_MS))
            world.pass_ms(1000)
            world.plan()
            return [update.overhead_ms for update in world.sent(1, messages.PlanUpdate)[told:]]

        ids = itertools.count(1)
        told_after(0.0)
        before_ms, place = world.plan_of(1).overhead_ms, world.plan_of(1).variant
        (after_ms,) = told_after(8.0)
        assert after_ms - before_ms >= OVERHEAD_STEP_MS
        assert world.plan_of(1).variant == place
        told = [told_after(0.2) for _ in range(8)]
        assert not any(told[-3:]), "nothing more to say"
        assert world.plan_of(1).overhead_ms == pytest.approx(before_ms, abs=OVERHEAD_STEP_MS)

    def test_fewer_batches_are_planned_with_while_promises_are_kept(self) -> None:
        world = World(Core(settings(rules=replace(settings().rules, latency_factor=None))), START_NS - NS_PER_S)
        world.up(0, 1)
        world.now_ns = START_NS
        world.join(1)
        seen = []
        for frame_id in range(1, FIRST_FRAMES + 50):
            world.frame(1, frame_id)
            kept = frame_id <= FIRST_FRAMES
            world.finish(world.all(ev.SubmitFrame)[-1], ran_ms=0.0 if kept else 60.0)
            if frame_id % FIRST_FRAMES in (49, 0, FIRST_FRAMES - 1):
                world.pass_ms(1000)
                world.plan()
                seen.append((frame_id, world.rows(PlanRow)[-1].latency_factor))
                assert world.plan_of(1).latency_factor == seen[-1][1], "told of it"
        assert seen == [(49, SAFE), (FIRST_FRAMES - 1, SAFE), (FIRST_FRAMES, TRIED), (FIRST_FRAMES + 49, SAFE)]
        assert world.all(ev.AskPlanner)[-1].request.problem.latency_factor == SAFE

    def test_pings_are_answered_with_their_reception(self, world: World) -> None:
        world.emit(ev.PingReceived(1, messages.Ping(ClientInstant(42)), START_NS - 5))
        (pong,) = world.sent(1, messages.Pong)
        assert (pong.sent_client_ns, pong.received_ns) == (42, START_NS - 5)


class TestLeaving:
    @pytest.fixture(autouse=True)
    def _joined(self, world: World) -> None:
        world.join(1)
        world.plan()

    def test_goodbye_waits_for_outstanding_results(self, world: World) -> None:
        world.frame(1, 1)
        world.emit(ev.ByeReceived(1))
        assert not world.all(ev.EndStream)
        world.frame(1, 2)
        (error,) = world.sent(1, messages.StreamError)
        assert error.message == "a frame after goodbye"
        world.finish(*world.all(ev.SubmitFrame))
        assert world.result(1, 1).outcome is Outcome.ON_TIME
        assert world.all(ev.EndStream) == [ev.EndStream(1)]
        assert len(world.core.sessions) == 0

    def test_a_half_closed_stream_ends_after_its_results_and_can_be_resumed(self, world: World) -> None:
        world.frame(1, 1)
        world.emit(ev.InputEnded(1))
        assert not world.all(ev.EndStream)
        world.finish(*world.all(ev.SubmitFrame))
        assert world.all(ev.EndStream) == [ev.EndStream(1)]
        world.emit(ev.StreamClosed(1))
        assert world.join(2, resume_token=bytes([1]) * 16) is not None

    def test_a_lost_client_resumes_with_its_id_statistics_and_results(self, world: World) -> None:
        world.frame(1, 7)
        world.emit(ev.StreamClosed(1))
        assert ev.Tell(0, ipc.Forget(1)) in world.done
        world.finish(*world.all(ev.SubmitFrame))
        world.pass_ms(5000)
        welcome = world.join(2, resume_token=bytes([1]) * 16)
        assert welcome is not None
        assert welcome.resumed
        assert (welcome.session_id, welcome.last_frame_id) == (1, 7)
        assert world.result(2, 7).outcome is Outcome.ON_TIME
        statistics = world.core.sessions.history[1]
        assert (statistics.frames, statistics.resumes, statistics.outcomes) == (1, 1, {Outcome.ON_TIME: 1})

    def test_of_very_many_past_sessions_the_earliest_are_only_added_up(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sessions, "KEEP_HISTORY", 2)
        for stream in range(2, 7):
            world.join(stream)
            world.frame(stream, 1, variant=99)
            world.emit(ev.ByeReceived(stream))
        table = world.core.sessions
        assert list(table.history) == [1, 5, 6]
        assert (table.earlier_count, table.earlier.frames, table.earlier.outcomes) == (3, 3, {Outcome.FAILED: 3})
        summary = summarise(world.core, 1.0)
        assert summary["schema_version"] == SCHEMA_VERSION
        assert (summary["frames"], summary["outcomes"]["FAILED"], summary["earlier_clients"]) == (5, 5, 3)

    def test_resuming_takes_over_from_a_stream_that_seems_alive(self, world: World) -> None:
        world.join(2, resume_token=bytes([1]) * 16)
        (error,) = world.sent(1, messages.StreamError)
        assert (error.code, error.fatal) == ("ABORTED", True)
        world.frame(1, 1)
        world.frame(2, 1)
        assert not world.sent(1, messages.Ack)
        assert len(world.sent(2, messages.Ack)) == 1
        world.emit(ev.StreamClosed(1))
        world.frame(2, 2)
        assert len(world.sent(2, messages.Ack)) == 2

    def test_a_vanished_client_loses_its_place_then_its_session(self, world: World) -> None:
        world.join(2)
        world.plan()
        world.emit(ev.StreamClosed(1))
        world.pass_ms(501)
        world.plan()
        assert [row.clients for row in world.rows(PlanRow)][-1] == 1, "the next plan does without it"
        world.pass_ms(10_000)
        assert [session.session_id for session in world.core.sessions] == [2]
        assert world.join(3, resume_token=bytes([1]) * 16) is None

    def test_others_take_the_room_of_a_vanished_client_at_once(self) -> None:
        world = self.crowded()
        assert not world.plan_of(3).placed, "two fill the device"
        world.emit(ev.StreamClosed(1))
        world.emit(ev.ByeReceived(3))
        welcome = world.join(4, fps=180.0)
        assert welcome is not None
        assert welcome.plan.placed
        back = world.join(5, resume_token=bytes([1]) * 16)
        assert back is not None
        assert not back.plan.placed, "its room is gone"
        assert back.plan.reason

    def test_a_client_that_comes_back_has_its_place_where_there_is_room(self, world: World) -> None:
        world.join(2)
        world.plan()
        before = world.plan_of(1)
        world.emit(ev.StreamClosed(1))
        world.pass_ms(501)
        world.plan()
        assert world.rows(PlanRow)[-1].clients == 1
        back = world.join(3, resume_token=bytes([1]) * 16)
        assert back is not None
        assert back.plan.placed
        assert back.plan.device == before.device
        world.plan()
        assert world.rows(PlanRow)[-1].clients == 2

    def test_clients_that_all_come_back_at_once_keep_their_places_until_the_next_plan(self) -> None:
        world = World(Core(settings(speeds=[1.0], max_sessions=9)), START_NS - NS_PER_S)
        world.up(0)
        world.now_ns = START_NS
        for stream in (1, 2, 3):
            world.join(stream, fps=40.0)
        world.plan()
        before = world.plan_of(1)
        for stream in (1, 2, 3):
            world.emit(ev.StreamClosed(stream))
        world.pass_ms(200)
        first = world.join(11, resume_token=bytes([1]) * 16)
        assert first is not None
        request = world.all(ev.AskPlanner)[-1].request
        assert len(request.problem.clients) == 1, "it is asked for the first alone"
        plan = create_policy("best-uniform").plan(request.problem)
        world.emit(ev.PlanMade(ipc.PlanReply(request.run, plan, "", 1.0)))
        assert world.plan_of(11).variant > before.variant, "the device runs what is too slow for all of them"
        for stream, token in ((12, 2), (13, 3)):
            back = world.join(stream, resume_token=bytes([token]) * 16)
            assert back is not None
            assert (back.plan.placed, back.plan.device, back.plan.variant) == (True, before.device, before.variant)
            assert any(isinstance(one, ev.SubmitFrame) for one in world.frame(stream, 1)), "its frames are taken"
        world.plan()
        assert {world.plan_of(stream).variant for stream in (11, 12, 13)} == {before.variant}

    @staticmethod
    def crowded() -> World:
        """One device, two clients that fill it, a third without a place."""
        world = World(Core(settings(speeds=[1.0], max_sessions=9)), START_NS - NS_PER_S)
        world.up(0)
        world.now_ns = START_NS
        for stream in (1, 2, 3):
            world.join(stream, fps=180.0)
            world.plan()
        return world

    def test_a_draining_stream_ends_when_nothing_is_outstanding(self, world: World) -> None:
        world.join(2, slo_ms=1_000.0)
        world.frame(2, 1)
        (submit,) = world.all(ev.SubmitFrame)
        world.emit(ev.DrainBegan(60.0, "the server is stopping"))
        world.pass_ms(99)
        assert not world.all(ev.EndStream), "frames may be on their way"
        world.pass_ms(900)
        assert world.all(ev.EndStream) == [ev.EndStream(1)], "the other stream still has a deadline to go"
        world.frame(2, 2)
        world.pass_ms(5)
        assert world.all(ev.EndStream) == [ev.EndStream(1)], "frame 2 waits for its answer"
        world.finish(world.all(ev.SubmitFrame)[1])
        assert world.result(2, 2).outcome is Outcome.ON_TIME
        assert world.all(ev.EndStream) == [ev.EndStream(1), ev.EndStream(2)]
        world.finish(submit)

    @pytest.mark.parametrize("reported", ["at once", "with a frame"])
    def test_an_absurd_round_trip_keeps_no_server_from_stopping(self, world: World, reported: str) -> None:
        at_once = reported == "at once"
        world.join(2, one_way_ms=1.7e308 if at_once else 0.0)
        world.frame(2, 1, rtt_ms=0.0 if at_once else 1.7e308)
        assert world.result(2, 1).outcome.is_miss, "no answer can be back in time"
        world.emit(ev.DrainBegan(3.0, "the server is stopping"))
        for stream in (1, 2):
            assert world.sent(stream, messages.Drain)
        world.pass_ms(2 * 100.0)
        assert world.all(ev.EndStream) == [ev.EndStream(1), ev.EndStream(2)]

    def test_draining_tells_everybody_and_takes_nobody(self, world: World) -> None:
        world.emit(ev.DrainBegan(3.0, "the server is stopping"))
        assert world.sent(1, messages.Drain) == [messages.Drain(3.0, "the server is stopping")]
        assert world.join(2) is None
        assert world.sent(2, messages.StreamError)[0].code == "UNAVAILABLE"
        world.frame(1, 1)
        assert len(world.all(ev.SubmitFrame)) == 1


class TestDevices:
    @pytest.fixture(autouse=True)
    def _joined(self, world: World) -> None:
        world.join(1)
        world.plan()

    def test_a_dead_executor_loses_only_its_running_batch(self, world: World) -> None:
        for frame_id in (1, 2, 3):
            world.frame(1, frame_id)
        running, *waiting = [submit.submit for submit in world.all(ev.SubmitFrame)]
        world.emit(ev.DeviceDown(0, "it was killed by SIGKILL", frozenset({running.slot})))
        lost = world.result(1, 1)
        assert lost.outcome is Outcome.FAILED
        assert lost.reason == "device 0 died with it: it was killed by SIGKILL"
        moves = world.all(ev.MoveFrame)
        assert [(move.dead_slot, move.device, move.submit.frame_id) for move in moves] == [
            (submit.slot, 1, submit.frame_id) for submit in waiting
        ]
        world.finish(*moves)
        assert {world.result(1, one).outcome for one in (2, 3)} == {Outcome.ON_TIME}

    def test_what_the_other_device_cannot_make_is_failed_at_once(self, world: World) -> None:
        world.frame(1, 1)
        world.now_ns += 93 * NS_PER_MS
        world.emit(ev.DeviceDown(0, "gone", frozenset()))
        assert world.result(1, 1).reason == "device 0 died and the others cannot finish it in time"

    def test_until_the_next_plan_frames_go_to_another_device(self, world: World) -> None:
        world.emit(ev.DeviceDown(0, "gone", frozenset()))
        world.frame(1, 1)
        assert [submit.device for submit in world.all(ev.SubmitFrame)] == [1]
        world.emit(ev.DeviceDown(1, "gone", frozenset()))
        world.frame(1, 2)
        assert world.result(1, 2).reason == "device 0 is restarting and no other serves its group"

    def test_a_device_that_comes_back_is_told_its_assignment(self, world: World) -> None:
        world.emit(ev.DeviceDown(0, "gone", frozenset()))
        world.plan()
        told = len(world.all(ev.Tell))
        world.emit(ev.DeviceUp(0, "paper-gpu", "default"))
        again = world.all(ev.Tell)[told:]
        assert [(tell.device, type(tell.message)) for tell in again] == [(0, ipc.Serve)]

    def test_a_device_that_hangs_is_restarted(self, world: World) -> None:
        world.frame(1, 1)
        for _ in range(30):
            world.pass_ms(500)
            world.plan()
        restarts = world.all(ev.RestartDevice)
        assert restarts
        reason = f"it holds a frame whose deadline passed more than {HANG_NS // NS_PER_S} s ago"
        assert restarts[0] == ev.RestartDevice(0, reason)

    def test_a_host_that_was_suspended_reads_its_answers_first(self, world: World) -> None:
        world.frame(1, 1)
        world.now_ns += 60 * NS_PER_S
        world.emit(ev.Woken())
        world.finish(*world.all(ev.SubmitFrame))
        for _ in range(30):
            world.pass_ms(500)
            world.plan()
        assert not world.all(ev.RestartDevice)

    def test_a_frame_with_a_far_deadline_may_be_held_until_then(self, world: World) -> None:
        world.join(2, slo_ms=30_000.0)
        world.plan()
        world.frame(2, 1)
        for _ in range(2 * 39):
            world.pass_ms(500)
            world.plan()
        assert not world.all(ev.RestartDevice)
        for _ in range(2 * 3):
            world.pass_ms(500)
            world.plan()
        assert world.all(ev.RestartDevice)


class TestSpeeds:
    @pytest.fixture
    def world(self) -> World:
        world = World(Core(settings()))
        world.up(0, 1)
        world.join(1)
        world.plan()
        return world

    def measured(self, world: World, speed: float) -> int:
        """How many plans are asked for when device 0 says its speed."""
        world.now_ns += NS_PER_S // 5
        before = len(world.all(ev.AskPlanner))
        world.emit(ev.SpeedMeasured(ipc.Speed(0, speed)))
        return len(world.all(ev.AskPlanner)) - before

    def test_a_slower_device_is_planned_with_at_once_a_faster_one_with_the_next_plan(self, world: World) -> None:
        assert self.measured(world, 0.5) == 1
        assert [device.speed for device in world.all(ev.AskPlanner)[-1].request.problem.devices] == [0.5, 1.0]
        world.plan()
        assert world.rows(PlanRow)[-1].trigger == "speed"
        assert self.measured(world, 0.9) == 0
        world.now_ns += NS_PER_S
        world.emit(ev.Woken())
        assert world.all(ev.AskPlanner)[-1].request.problem.devices[0].speed == 0.9

    def test_its_clients_are_told_what_their_frames_take_now(self, world: World) -> None:
        told = world.sent(1, messages.PlanUpdate)[-1]
        self.measured(world, 0.9)
        world.plan()
        again = world.sent(1, messages.PlanUpdate)[-1]
        assert (again.device, again.variant) == (told.device, told.variant) == (0, 2)
        assert again.infer_ms == pytest.approx(told.infer_ms / 0.9)

    def test_the_next_executor_of_a_device_begins_at_its_configured_speed(self, world: World) -> None:
        self.measured(world, 0.5)
        world.emit(ev.DeviceDown(0, "killed", frozenset()))
        world.emit(ev.DeviceUp(0, "paper-gpu", "default"))
        assert world.core.devices[0].speed == 1.0


class TestPlanning:
    def test_it_is_periodic_while_there_are_clients_and_quiet_otherwise(self, world: World) -> None:
        assert world.core.wake_ns() is None
        world.join(1)
        world.plan()
        runs = world.core.plans
        for _ in range(4):
            world.pass_ms(500)
            world.plan()
        assert world.core.plans == runs + 4
        world.emit(ev.ByeReceived(1))
        world.plan()
        assert world.core.wake_ns() is None

    def test_triggers_that_come_during_a_run_are_served_once_after_it(self, world: World) -> None:
        world.join(1)
        asked = len(world.all(ev.AskPlanner))
        world.join(2)
        world.join(3)
        assert len(world.all(ev.AskPlanner)) == asked
        world.plan()
        assert [row.clients for row in world.rows(PlanRow)][-2:] == [1, 3]

    def test_a_slow_planner_is_replaced_by_the_fallback_and_its_late_plan_still_counts(self, world: World) -> None:
        world.join(1)
        world.pass_ms(300)
        row = world.rows(PlanRow)[-1]
        assert row.fallback
        session = world.core.sessions.get(1)
        assert session is not None
        assert session.plan.placed
        world.plan()
        assert not world.rows(PlanRow)[-1].fallback

    def test_a_planner_that_hangs_is_restarted(self, world: World) -> None:
        world.join(1)
        world.pass_ms(PLANNER_PATIENCE_NS / NS_PER_MS + 1)
        assert world.all(ev.RestartPlanner) == [ev.RestartPlanner()]
        world.emit(ev.PlannerLost())
        assert world.rows(PlanRow)[-1].fallback
        world.plan()
        assert world.rows(PlanRow)[-1].trigger == "planner lost"

    def test_a_failed_policy_falls_back(self, world: World) -> None:
        world.join(1)
        request = world.all(ev.AskPlanner)[-1].request
        world.emit(ev.PlanMade(ipc.PlanReply(request.run, None, "boom", 1.0)))
        assert world.rows(PlanRow)[-1].fallback

    def test_an_answer_to_another_run_is_ignored(self, world: World) -> None:
        rows = len(world.rows(PlanRow))
        world.emit(ev.PlanMade(ipc.PlanReply(999, None, "", 1.0)))
        assert len(world.rows(PlanRow)) == rows
