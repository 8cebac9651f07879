from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moonjelly.adaptation import OUTAGE_AFTER_MS, PADDING_BYTES, Send
from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages as wire
from moonjelly.sdk.results import EncodedFrame, FrameResult
from moonjelly.sdk.session import ANSWER_GRACE_MS, Identity, Session, Withheld
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_MS, ClientInstant, ServerInstant, ms_to_ns

PLAN = wire.PlanUpdate(version=1, placed=True, variant=1, infer_ms=5.0)
ZOO = wire.ZooInfo("zoo", "default", (wire.ZooVariant("s", 96, 0.25), wire.ZooVariant("l", 128, 0.5)), ("car",))
WELCOME = wire.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 100_000, 4, "1")
FRAME = EncodedFrame(b"x" * 4000, 96, 96, 0, 90, 1.0)
START = ClientInstant(1_000_000_000)
SLO_MS = 100.0


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(START + ms_to_ns(milliseconds))


def session(welcome: wire.Welcome = WELCOME) -> Session:
    made = Session(Identity("camera", SLO_MS, 10.0, "default"))
    assert made.connect(welcome, START) == []
    return made


def begun(made: Session, captured: float = 0.0, now: float = 1.0) -> int:
    frame_id = made.begin(FRAME, at(captured), at(now))
    assert isinstance(frame_id, int)
    return frame_id


def departed(made: Session, frame_id: int, now: float = 2.0) -> wire.Frame:
    frame = made.depart(frame_id, at(now))
    assert isinstance(frame, wire.Frame)
    return frame


def answer(frame_id: int, outcome: Outcome = Outcome.ON_TIME, **changes: object) -> wire.ServerMessage:
    result = wire.Result(
        frame_id, outcome, "", Detections.empty(), 0, 1, 1, wire.StageTimes(infer_ms=3.0), ServerInstant(5)
    )
    return wire.ServerMessage(results=(replace(result, **changes),))  # type: ignore[arg-type]


def ack(frame_id: int, size: int = 4000) -> wire.ServerMessage:
    return wire.ServerMessage(acks=(wire.Ack(frame_id, ServerInstant(10), ServerInstant(11), size),))


def test_the_exact_deadline_is_on_time_and_a_nanosecond_more_is_late() -> None:
    made = session()
    first, second = begun(made), begun(made)
    departed(made, first)
    departed(made, second)
    (on_time,) = made.receive(answer(first), at(SLO_MS))
    (late,) = made.receive(answer(second), ClientInstant(at(SLO_MS) + 1))
    assert (on_time.outcome, on_time.accuracy) == (Outcome.ON_TIME, 0.25)
    assert (late.outcome, late.accuracy) == (Outcome.LATE, 0.0)
    assert late.reason == "answered 0.0 ms late"


def test_the_servers_view_of_lateness_does_not_count() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    (result,) = made.receive(answer(frame_id, Outcome.LATE, reason="so it thinks"), at(50))
    assert (result.outcome, result.reason) == (Outcome.ON_TIME, "")


def test_shares_of_the_latency() -> None:
    made = session()
    frame_id = begun(made, captured=0, now=4)
    departed(made, frame_id, now=6)
    (result,) = made.receive(answer(frame_id), at(16))
    assert result.latency_ms == pytest.approx(16)
    assert result.network_ms == pytest.approx(16 - 6 - 3)
    assert (result.desired_variant, result.used_variant, result.next_variant) == ("s", "s", "l")


def test_a_frame_ends_once_and_what_comes_later_is_a_stray() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    assert len(made.receive(answer(frame_id), at(10))) == 1
    assert made.receive(answer(frame_id), at(11)) == []
    assert made.receive(answer(999), at(12)) == []
    counts = made.statistics()
    assert (counts.captured, counts.on_time, counts.stray_results) == (1, 1, 2)


def test_no_answer_on_a_living_stream_is_lost_after_the_grace() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    end_ms = SLO_MS + ANSWER_GRACE_MS
    assert made.expire(at(end_ms - 0.001)) == []
    (result,) = made.expire(at(end_ms))
    assert (result.outcome, result.reason, result.sent_ns) == (Outcome.LOST, "no answer came", at(2))


def test_a_lost_connection_skips_the_unsent_and_loses_the_sent_at_their_deadline() -> None:
    made = session()
    sent, unsent = begun(made), begun(made)
    departed(made, sent)
    (skipped,) = made.disconnect()
    assert (skipped.frame_id, skipped.outcome, skipped.sent_ns) == (unsent, Outcome.SKIPPED, None)
    assert made.next_instant() == at(SLO_MS)
    assert made.expire(at(SLO_MS - 1)) == []
    (lost,) = made.expire(at(SLO_MS))
    assert (lost.frame_id, lost.outcome, lost.reason) == (sent, Outcome.LOST, "the connection was lost")


def test_resuming_keeps_what_the_server_has_and_loses_what_it_has_not() -> None:
    made = session()
    known, unknown = begun(made), begun(made)
    departed(made, known)
    departed(made, unknown)
    made.disconnect()
    assert made.hello(at(20)).resume_token == b"token"
    (lost,) = made.connect(replace(WELCOME, resumed=True, last_frame_id=known), at(30))
    assert (lost.frame_id, lost.outcome) == (unknown, Outcome.LOST)
    (result,) = made.receive(answer(known), at(40))
    assert result.outcome is Outcome.ON_TIME
    assert made.statistics().reconnects == 1


def test_a_new_session_after_a_loss_loses_all_and_ids_go_on() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    made.disconnect()
    assert [result.outcome for result in made.forget()] == [Outcome.LOST]
    assert made.hello(at(5)).resume_token == b""
    made.connect(WELCOME, at(6))
    assert begun(made) == frame_id + 1


def test_a_frame_too_late_for_the_link_is_skipped() -> None:
    made = session()
    frame_id = begun(made)
    result = made.depart(frame_id, at(SLO_MS))
    assert isinstance(result, FrameResult)
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "its deadline passed before the link took it")
    assert made.depart(frame_id, at(SLO_MS)) is None


def test_why_no_frame_can_be_sent() -> None:
    fresh = Session(Identity("camera", SLO_MS, 10.0, "default"))
    assert fresh.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "no connection to the server")
    busy = session()
    for _ in range(4):
        begun(busy)
    assert busy.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "4 frames are unanswered already")
    draining = session()
    draining.receive(wire.ServerMessage(drain=wire.Drain(1.0, "new release")), at(1))
    assert draining.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "the server drains: new release")
    assert session().obstacle(at(1)) is None


def test_what_cannot_be_sent_still_has_its_outcome() -> None:
    made = session(replace(WELCOME, max_frame_bytes=1000))
    result = made.begin(FRAME, at(0), at(1))
    assert isinstance(result, FrameResult)
    assert (result.outcome, result.wire_bytes) == (Outcome.FAILED, 4000)
    assert result.reason == "4000 bytes; the server takes at most 1000: lower the quality or the size"
    withheld = made.withhold(at(0), Withheld(Outcome.SKIPPED, "why"), at(1))
    assert withheld.frame_id == result.frame_id + 1
    assert made.statistics().captured == 2
    assert made.statistics().miss_rate == 1.0


def test_sized_for_a_variant_that_is_not_there() -> None:
    result = session().begin(replace(FRAME, variant=2), at(0), at(1))
    assert isinstance(result, FrameResult)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "sized for variant 2; the zoo has 2")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (wire.ServerMessage(plan=replace(PLAN, variant=2)), "variant 2; its zoo has 2"),
        (answer(1, variant=9), "variant 9"),
        (answer(1, next_variant=9), "variant 9"),
        (
            answer(
                1, detections=Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
            ),
            "class 1; its zoo has 1",
        ),
    ],
)
def test_a_server_that_contradicts_its_zoo(message: wire.ServerMessage, text: str) -> None:
    made = session()
    departed(made, begun(made))
    with pytest.raises(ProtocolError, match=text):
        made.receive(message, at(3))
    assert made.in_flight == 1


def test_the_plan_follows_answers_but_never_goes_back() -> None:
    made = session()
    first, second = begun(made), begun(made)
    departed(made, first)
    departed(made, second)
    made.receive(answer(first, next_variant=0, plan_version=3), at(5))
    assert made.plan is not None
    assert (made.plan.variant, made.plan.version) == (0, 3)
    made.receive(answer(second, next_variant=1, plan_version=2), at(6))
    assert made.plan.variant == 0


def test_acknowledgements_teach_the_link_and_only_once() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id, now=2)
    assert len(made.unacknowledged) == 1
    made.receive(ack(frame_id), at(12))
    learnt = made.link
    assert made.estimate(at(12)).known
    assert made.unacknowledged == []
    made.receive(ack(frame_id), at(500))
    assert made.link == learnt


def test_pings_come_quickly_first_and_then_twice_a_second() -> None:
    made = session()
    instants = []
    now = START
    while len(instants) < 7:
        if made.ping(now) is not None:
            instants.append((now - START) / NS_PER_MS)
        now = ClientInstant(now + NS_PER_MS)
    assert np.diff(instants).tolist() == [20, 20, 20, 20, 500, 500]


def test_between_frames_a_ping_a_second_is_padded_and_counts_with_its_size() -> None:
    """A large frame in 4 ms: the link is fast enough for it."""
    made = session()
    for index in range(5):
        made.ping(at(20 * index))
    frame_id = begun(made, captured=100, now=100)
    departed(made, frame_id, now=100)
    assert made.ping(at(600)) == wire.Ping(at(600)), "a frame is on its way"
    made.receive(ack(frame_id), at(604))
    sent = [made.ping(at(now)) for now in (1_100, 1_600, 2_100)]
    assert [ping.padding_bytes for ping in sent if ping] == [PADDING_BYTES, 0, PADDING_BYTES]
    before = made.link
    made.receive(wire.ServerMessage(pongs=(wire.Pong(at(1_100), ServerInstant(20), ServerInstant(21)),)), at(1_105))
    assert made.link.bandwidth != before.bandwidth
    measured = made.link.bandwidth
    made.receive(wire.ServerMessage(pongs=(wire.Pong(at(1_600), ServerInstant(30), ServerInstant(31)),)), at(1_605))
    assert made.link.bandwidth == measured, "without padding it measures the delay alone"


def test_silence_is_counted_from_the_first_unanswered_message() -> None:
    made = session()
    assert not made.silent(at(60_000)), "nobody asked"
    made.ping(START)
    pong = wire.ServerMessage(pongs=(wire.Pong(START, ServerInstant(1), ServerInstant(1)),))
    made.receive(pong, at(10))
    assert not made.silent(at(60_000)), "all was answered"
    departed(made, begun(made, captured=100, now=101), now=110)
    assert not made.silent(at(110 + OUTAGE_AFTER_MS - 1))
    assert made.silent(at(110 + OUTAGE_AFTER_MS))
    made.disconnect()
    assert not made.silent(at(60_000))


def test_the_first_choice_is_small() -> None:
    choice = session().choose(at(0), at(1))
    assert isinstance(choice, Send)
    assert choice.variant == 0


def test_a_client_that_takes_too_long_to_prepare_frames_skips_them_and_tries_again() -> None:
    made = session()
    assert isinstance(made.choose(at(0.0), at(0.0)), Send)
    frame_id = begun(made, 0.0, 95.0)
    departed(made, frame_id, 95.0)
    made.receive(ack(frame_id), at(97.0))
    made.receive(answer(frame_id), at(98.0))
    assert made.choose(at(200.0), at(200.0)) == Withheld(Outcome.SKIPPED, "it cannot arrive in time")
    assert isinstance(made.choose(at(700.0), at(700.0)), Send)


def test_a_rejected_client_sends_one_small_frame_a_second_to_keep_its_bandwidth_known() -> None:
    made = session(replace(WELCOME, plan=replace(PLAN, placed=False, reason="full")))
    choice = made.choose(at(0), at(1))
    assert isinstance(choice, Send)
    assert choice.variant == 0
    probe = begun(made, now=1)
    departed(made, probe)
    assert made.choose(at(2), at(3)) == Withheld(Outcome.REJECTED, "full")
    refused = made.begin(FRAME, at(2), at(3))
    assert isinstance(refused, FrameResult)
    assert (refused.outcome, refused.reason) == (Outcome.REJECTED, "full")
    made.receive(ack(probe), at(4))
    assert made.estimate(at(4)).known
    (result,) = made.receive(answer(probe, Outcome.REJECTED, reason="full"), at(4))
    assert result.outcome is Outcome.REJECTED
    assert isinstance(made.choose(at(1001), at(1001)), Send)


def test_closing_ends_everything() -> None:
    made = session()
    departed(made, begun(made))
    begun(made)
    assert [result.outcome for result in made.close()] == [Outcome.LOST, Outcome.SKIPPED]
    assert made.in_flight == 0
    assert made.close() == []
