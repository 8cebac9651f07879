from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from moonjelly.adaptation import PADDING_BYTES, Send
from moonjelly.errors import ProtocolError
from moonjelly.outage import LOOK_AGAIN_MS, MAX_SILENCE_MS, SILENCE_MS
from moonjelly.rpc import messages
from moonjelly.sdk.frames import ANSWER_GRACE_MS
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.session import Identity, Session
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant, ms_to_ns

PLAN = messages.PlanUpdate(version=1, placed=True, variant=1, infer_ms=5.0)
ZOO = messages.ZooInfo(
    "zoo", "default", (messages.ZooVariant("s", 96, 0.25), messages.ZooVariant("l", 128, 0.5)), ("car",)
)
WELCOME = messages.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 100_000, 4, "1")
FRAME = EncodedFrame(b"x" * 4000, 96, 96, 0, 90, 1.0)
START = ClientInstant(1_000_000_000)
SLO_MS = 100.0


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(START + ms_to_ns(milliseconds))


def session(welcome: messages.Welcome = WELCOME, slo_ms: float = SLO_MS) -> Session:
    made = Session(Identity("camera", slo_ms, 10.0, "default"))
    assert made.connect(welcome, START) == []
    return made


def begun(made: Session, captured: float = 0.0, now: float = 1.0) -> int:
    frame_id = made.begin(FRAME, at(captured), at(now))
    assert isinstance(frame_id, int)
    return frame_id


def departed(made: Session, frame_id: int, now: float = 2.0) -> messages.Frame:
    frame = made.depart(frame_id, at(now))
    assert isinstance(frame, messages.Frame)
    return frame


def answer(frame_id: int, outcome: Outcome = Outcome.ON_TIME, **changes: object) -> messages.ServerMessage:
    result = messages.Result(
        frame_id, outcome, "", Detections.empty(), 0, 1, 1, messages.StageTimes(infer_ms=3.0), ServerInstant(5)
    )
    return messages.ServerMessage(results=(structs.replace(result, **changes),))  # type: ignore[arg-type]


def ack(frame_id: int, size: int = 4000) -> messages.ServerMessage:
    return messages.ServerMessage(acks=(messages.Ack(frame_id, ServerInstant(10), ServerInstant(11), size),))


def pong(sent_ms: float, server_ns: int) -> messages.ServerMessage:
    answer_of = messages.Pong(at(sent_ms), ServerInstant(server_ns), ServerInstant(server_ns + 1))
    return messages.ServerMessage(pongs=(answer_of,))


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
    (lost,) = made.connect(structs.replace(WELCOME, resumed=True, last_frame_id=known), at(30))
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
    assert fresh.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "no connection to the server", may_pass=True)
    busy = session()
    for _ in range(4):
        begun(busy)
    assert busy.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "4 frames are unanswered already", may_pass=True)
    draining = session()
    draining.receive(messages.ServerMessage(drain=messages.Drain(1.0, "new release")), at(1))
    assert draining.obstacle(at(1)) == Withheld(Outcome.SKIPPED, "the server drains: new release")
    assert session().obstacle(at(1)) is None


def test_what_cannot_be_sent_still_has_its_outcome() -> None:
    made = session(structs.replace(WELCOME, max_frame_bytes=1000))
    result = made.begin(FRAME, at(0), at(1))
    assert isinstance(result, FrameResult)
    assert (result.outcome, result.wire_bytes) == (Outcome.FAILED, 4000)
    assert result.reason == "4000 bytes; the server takes at most 1000: lower the quality or the size"
    withheld = made.withhold(at(0), Withheld(Outcome.SKIPPED, "why"), at(1))
    assert withheld.frame_id == result.frame_id + 1
    assert made.statistics().captured == 2
    assert made.statistics().miss_rate == 1.0


def test_a_message_that_contradicts_the_zoo_changes_nothing() -> None:
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    right, wrong = answer(frame_id).results[0], answer(frame_id, next_variant=9).results[0]
    with pytest.raises(ProtocolError, match="the server names variant 9; its zoo has 2"):
        made.receive(messages.ServerMessage(results=(right, wrong), plan=structs.replace(PLAN, version=5)), at(3))
    assert made.in_flight == 1
    assert made.plan == PLAN


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


def test_between_frames_a_ping_a_second_is_padded_and_counts_with_its_size() -> None:
    """A large frame in 4 ms: the link is fast enough for it."""
    made = session()
    for index in range(5):
        made.ping(at(20 * index))
    frame_id = begun(made, captured=100, now=100)
    departed(made, frame_id, now=100)
    assert made.ping(at(600)) == messages.Ping(at(600)), "a frame is on its way"
    made.receive(ack(frame_id), at(604))
    sent = [made.ping(at(now)) for now in (1_100, 1_600, 2_100)]
    assert [ping.padding_bytes for ping in sent if ping] == [PADDING_BYTES, 0, PADDING_BYTES]
    before = made.link
    made.receive(
        messages.ServerMessage(pongs=(messages.Pong(at(1_100), ServerInstant(20), ServerInstant(21)),)), at(1_105)
    )
    assert made.link.bandwidth != before.bandwidth
    measured = made.link.bandwidth
    made.receive(
        messages.ServerMessage(pongs=(messages.Pong(at(1_600), ServerInstant(30), ServerInstant(31)),)), at(1_605)
    )
    assert made.link.bandwidth == measured, "without padding it measures the delay alone"


def test_silence_is_counted_from_the_first_unanswered_message() -> None:
    made = session()
    assert not made.silent(at(60_000)), "nobody asked"
    made.ping(START)
    made.receive(pong(0, server_ns=1), at(10))
    assert not made.silent(at(60_000)), "all was answered"
    departed(made, begun(made, captured=100, now=101), now=110)
    gone = 110 + SILENCE_MS + 10, 110 + SILENCE_MS + 10 - LOOK_AGAIN_MS
    assert not made.silent(at(gone[1])), "it reads once more what has arrived"
    assert not made.silent(at(gone[0] - 1))
    assert made.silent(at(gone[0]))
    made.disconnect()
    assert not made.silent(at(60_000))


def test_a_frame_that_may_still_be_in_time_is_waited_for() -> None:
    made = session(slo_ms=1_500.0)
    departed(made, begun(made), now=2)
    assert not made.silent(at(1_502 - LOOK_AGAIN_MS))
    assert made.silent(at(1_502))


def test_a_large_frame_has_the_time_that_the_link_takes_for_it() -> None:
    made = session()
    first = begun(made)
    departed(made, first, now=2)
    made.receive(ack(first), at(102))
    rate_bps = made.estimate(at(110)).bandwidth_bps
    large = made.begin(dataclasses.replace(FRAME, data=b"x" * 90_000), at(110), at(110))
    assert isinstance(large, int)
    departed(made, large, now=110)
    least = 110 + SILENCE_MS + 90_000 * 8e3 / rate_bps
    assert least < 110 + MAX_SILENCE_MS
    assert not made.silent(at(least - LOOK_AGAIN_MS - 1))
    assert not made.silent(at(least - 1))


def test_what_the_server_has_when_the_session_resumes_is_acknowledged() -> None:
    """Its acknowledgement went with the old stream: the new one is not stalled by it."""
    made = session()
    frame_id = begun(made)
    departed(made, frame_id)
    made.disconnect()
    assert made.connect(structs.replace(WELCOME, resumed=True, last_frame_id=frame_id), at(50)) == []
    assert made.unacknowledged == []
    (result,) = made.receive(answer(frame_id), at(60))
    assert result.outcome is Outcome.ON_TIME


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


def test_a_host_that_stalled_for_two_frames_goes_on_sending() -> None:
    made = session()
    for number in range(12):
        captured = 100.0 * number
        assert isinstance(made.choose(at(captured), at(captured)), Send), f"frame {number}"
        taken = 98.0 if number in (6, 7) else 2.0
        frame_id = begun(made, captured, captured + taken)
        departed(made, frame_id, captured + taken)
        made.receive(ack(frame_id), at(captured + taken + 1.0))
        made.receive(answer(frame_id), at(captured + taken + 1.5))


def test_a_client_whose_frames_miss_their_deadlines_sends_smaller_ones() -> None:
    """A frame of 4 kB takes 30 ms, so the larger size would make it, but not with time to spare."""
    made = session()

    def chosen_after(number: int, outcome: Outcome) -> int:
        captured = 100.0 * number
        frame_id = begun(made, captured, captured)
        departed(made, frame_id, captured)
        arrived = ServerInstant(at(captured + 30.0))
        made.receive(
            messages.ServerMessage(acks=(messages.Ack(frame_id, arrived, arrived, 4000),)), at(captured + 31.0)
        )
        made.receive(answer(frame_id, outcome), at(captured + 40.0))
        choice = made.choose(at(captured + 100.0), at(captured + 100.0))
        return choice.variant if isinstance(choice, Send) else -1

    for number in range(5):
        sent = made.ping(at(20.0 * number))
        assert sent is not None
        server = ServerInstant(sent.sent_ns + ms_to_ns(1.0))
        made.receive(
            messages.ServerMessage(pongs=(messages.Pong(sent.sent_ns, server, server),)), at(20.0 * number + 2.0)
        )
    assert [chosen_after(1 + number, Outcome.ON_TIME) for number in range(20)][-1] == 1
    assert [chosen_after(21 + number, Outcome.DROPPED) for number in range(5)][-1] == 0


def test_a_rejected_client_sends_one_small_frame_a_second_to_keep_its_bandwidth_known() -> None:
    made = session(structs.replace(WELCOME, plan=structs.replace(PLAN, placed=False, reason="full")))
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
