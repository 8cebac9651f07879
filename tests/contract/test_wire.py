"""Both directions of the wire agree: what one side writes, the other reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moonjelly.errors import ProtocolError
from moonjelly.rpc import boxes, client_wire, messages, server_wire
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant

uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
measures = st.floats(0.0, 1e12, allow_nan=False)
SENT = ServerInstant(77)

client_messages = st.one_of(
    st.builds(
        messages.Hello,
        name=st.text(max_size=20),
        slo_ms=measures,
        fps=measures,
        group=st.text(min_size=1, max_size=5),
        resume_token=st.binary(max_size=20),
        bandwidth_bps=measures,
        one_way_ms=measures,
        protocol_version=uint32,
    ),
    st.builds(
        messages.Frame,
        frame_id=uint64,
        captured_ns=uint64.map(ClientInstant),
        sent_ns=uint64.map(ClientInstant),
        width=uint32,
        height=uint32,
        variant=uint32,
        quality=uint32,
        bandwidth_bps=measures,
        rtt_ms=measures,
        server_minus_client_ns=st.integers(-(2**63), 2**63 - 1),
        offset_bound_ns=uint64,
        data=st.binary(max_size=50),
    ),
    st.builds(messages.Ping, sent_ns=uint64.map(ClientInstant)),
    st.builds(messages.Bye, reason=st.text(max_size=20)),
)
plans = st.builds(
    messages.PlanUpdate,
    version=uint64,
    placed=st.booleans(),
    variant=uint32,
    batch=uint32,
    device=uint32,
    reason=st.text(max_size=9),
    infer_ms=measures,
    overhead_ms=measures,
    latency_factor=measures,
)


def result(boxes: int, **changes: Any) -> messages.Result:
    draw = np.random.default_rng(boxes)
    detections = Detections(
        draw.random((boxes, 4), np.float32), draw.random(boxes, np.float32), draw.integers(0, 9, boxes, np.int32)
    )
    stages = messages.StageTimes(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7, 8)
    fields: dict[str, Any] = {
        "frame_id": 3, "outcome": Outcome.ON_TIME, "reason": "", "detections": detections, "variant": 1,
        "next_variant": 2, "plan_version": 9, "stages": stages, "sent_ns": ServerInstant(1),
    }  # fmt: skip
    return messages.Result(**(fields | changes))


@settings(deadline=None)
@given(client_messages)
def test_a_clients_message_survives(message: messages.ClientMessage) -> None:
    assert client_wire.read(client_wire.write(message)) == message


pictures = st.builds(lambda size, end: bytes(size) + end, st.integers(2000, 70_000), st.binary(max_size=9))


@settings(deadline=None)
@given(pictures, uint64, uint64)
@example(bytes(2000), 0x62, 0x62_62_62_62)
@example(b"x" * 2000, 0x62 << 7 | 0x62, 0)
def test_a_picture_is_read_in_place_wherever_its_message_holds_the_tag_of_its_field(
    picture: bytes, frame_id: int, captured_ns: int
) -> None:
    """The numbers before the picture may look like its tag."""
    now = ClientInstant(captured_ns)
    frame = messages.Frame(frame_id, now, now, 98, 98, 98, 98, 0.0, 0.0, 98, 98, picture)
    read = client_wire.read(client_wire.write(frame))
    assert read == frame
    assert isinstance(read, messages.Frame)
    assert isinstance(read.data, memoryview)


def test_a_picture_is_read_also_where_other_fields_follow_it_or_it_comes_twice() -> None:
    head = pb.Frame(frame_id=7, encoding=pb.ENCODING_JPEG).SerializeToString()
    picture, other = (pb.Frame(data=byte * 2000).SerializeToString() for byte in (b"x", b"y"))
    for body in (picture + head, head + other + picture):
        length = bytes([len(body) & 0x7F | 0x80, len(body) >> 7])
        assert len(body) < 1 << 14
        read = client_wire.read(bytes([2 << 3 | 2]) + length + body)
        assert isinstance(read, messages.Frame)
        assert (read.frame_id, read.data) == (7, b"x" * 2000)


def test_an_unknown_offset_stays_unknown() -> None:
    frame = messages.Frame(1, ClientInstant(2), ClientInstant(3), 64, 64, 0, 90, 0.0, 0.0, None, 0, b"x")
    assert client_wire.read(client_wire.write(frame)) == frame


@settings(deadline=None)
@given(st.lists(plans, max_size=1), st.integers(0, 5))
def test_a_servers_message_survives_and_is_stamped(plan: list[messages.PlanUpdate], boxes: int) -> None:
    message = messages.ServerMessage(
        acks=(messages.Ack(1, ServerInstant(5), ServerInstant(6), 100),),
        results=(result(boxes), result(boxes, outcome=Outcome.DROPPED, reason="late")),
        plan=plan[0] if plan else None,
        pongs=(messages.Pong(ClientInstant(1), ServerInstant(2), ServerInstant(3)),),
    )
    read = server_wire.read(server_wire.write(message, SENT))
    assert read.plan == message.plan
    assert read.acks == (messages.Ack(1, ServerInstant(5), SENT, 100),)
    assert read.pongs == (messages.Pong(ClientInstant(1), ServerInstant(2), SENT),)
    for mine, theirs in zip(message.results, read.results, strict=True):
        assert (theirs.outcome, theirs.reason, theirs.stages, theirs.sent_ns) == (
            mine.outcome,
            mine.reason,
            mine.stages,
            SENT,
        )
        np.testing.assert_array_equal(theirs.detections.boxes, mine.detections.boxes)
        np.testing.assert_array_equal(theirs.detections.scores, mine.detections.scores)
        np.testing.assert_array_equal(theirs.detections.classes, mine.detections.classes)


def test_welcome_drain_and_error_survive() -> None:
    zoo = messages.ZooInfo("paper", "default", (messages.ZooVariant("net-64", 64, 0.5),), ("car",))
    plan = messages.PlanUpdate(1, True, 0)
    message = messages.ServerMessage(
        welcome=messages.Welcome(7, b"token", 30.0, True, 5, zoo, plan, 1000, 32, "0.1"),
        drain=messages.Drain(3.0, "stopping"),
        error=messages.StreamError("ABORTED", "why", 4, True),
    )
    read = server_wire.read(server_wire.write(message, SENT))
    assert (read.welcome, read.drain, read.error) == (message.welcome, message.drain, message.error)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.ClientMessage(), "a message of no kind"),
        (pb.ClientMessage(frame=pb.Frame(frame_id=4)), r"frame 4 has encoding 0; JPEG \(1\) is known"),
        (
            pb.ClientMessage(frame=pb.Frame(encoding=pb.ENCODING_JPEG, rtt_ms=float("inf"))),
            "rtt_ms is inf; it must be finite",
        ),
        (pb.ClientMessage(hello=pb.Hello(bandwidth_bps=-1.0)), "bandwidth_bps is -1.0"),
    ],
)
def test_what_the_wire_does_not_allow_is_refused_in_words(message: pb.ClientMessage, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        client_wire.read(message.SerializeToString())


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_an_impossible_latency_factor_is_refused_in_words(factor: float) -> None:
    message = pb.ServerMessage(plan=pb.PlanUpdate(version=4, latency_factor=factor))
    with pytest.raises(ProtocolError, match=f"plan 4 has latency factor {factor}; 2 is usual"):
        server_wire.read(message.SerializeToString())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_but_never_anything_else(data: bytes) -> None:
    try:
        message = client_wire.read(data)
    except ProtocolError:
        return
    assert isinstance(message, messages.Hello | messages.Frame | messages.Ping | messages.Bye)


def test_boxes_of_classes_beyond_one_byte_and_many_boxes_survive() -> None:
    draw = np.random.default_rng(1)
    for classes in (np.array([127, 128, 70_000], np.int32), np.full(100, 5, np.int32)):
        count = len(classes)
        sent = result(
            0, detections=Detections(draw.random((count, 4), np.float32), draw.random(count, np.float32), classes)
        )
        (read,) = server_wire.read(server_wire.write(messages.ServerMessage(results=(sent,)), SENT)).results
        np.testing.assert_array_equal(read.detections.classes, classes)
        np.testing.assert_array_equal(read.detections.boxes, sent.detections.boxes)
        np.testing.assert_array_equal(boxes.unpack(boxes.pack(sent.detections)).scores, sent.detections.scores)
