"""The only file that knows both protobuf and domain types.

Reading is strict: whatever the wire does not allow raises :class:`~moonjelly.errors.ProtocolError`, whose text
names the field and its value.
"""

from __future__ import annotations

import contextlib
import math
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import DEFAULT_GROUP, Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant

_US_PER_MS = 1000.0
_OUTCOMES: dict[int, Outcome] = {
    pb.OUTCOME_ON_TIME: Outcome.ON_TIME,
    pb.OUTCOME_LATE: Outcome.LATE,
    pb.OUTCOME_SKIPPED: Outcome.SKIPPED,
    pb.OUTCOME_REJECTED: Outcome.REJECTED,
    pb.OUTCOME_DROPPED: Outcome.DROPPED,
    pb.OUTCOME_LOST: Outcome.LOST,
    pb.OUTCOME_FAILED: Outcome.FAILED,
}


# -- the client's direction -------------------------------------------------------------------------------------------


def client_to_wire(message: messages.ClientMessage) -> bytes:
    """A client's message for the wire."""
    return bytes(_client(message).SerializeToString())


def _client(message: messages.ClientMessage) -> pb.ClientMessage:
    if isinstance(message, messages.Frame):
        return pb.ClientMessage(frame=_frame(message))
    if isinstance(message, messages.Ping):
        return pb.ClientMessage(ping=pb.Ping(sent_client_ns=message.sent_ns, padding=bytes(message.padding_bytes)))
    if isinstance(message, messages.Hello):
        return pb.ClientMessage(
            hello=pb.Hello(
                protocol_version=message.protocol_version,
                name=message.name,
                group=message.group,
                slo_ms=message.slo_ms,
                fps=message.fps,
                resume_token=message.resume_token,
                bandwidth_bps=message.bandwidth_bps,
                one_way_ms=message.one_way_ms,
            )
        )
    return pb.ClientMessage(bye=pb.Bye(reason=message.reason))


def _frame(frame: messages.Frame) -> pb.Frame:
    offset = (
        None
        if frame.server_minus_client_ns is None
        else pb.ClockOffset(server_minus_client_ns=frame.server_minus_client_ns, bound_ns=frame.offset_bound_ns)
    )
    return pb.Frame(
        frame_id=frame.frame_id,
        captured_client_ns=frame.captured_ns,
        sent_client_ns=frame.sent_ns,
        encoding=pb.ENCODING_JPEG,
        width=frame.width,
        height=frame.height,
        variant=frame.variant,
        quality=frame.quality,
        bandwidth_bps=frame.bandwidth_bps,
        rtt_ms=frame.rtt_ms,
        offset=offset,
        data=bytes(frame.data),
    )


def server_from_wire(data: bytes) -> messages.ServerMessage:
    """A server's message from the wire.

    Raises:
        ProtocolError: not a message, or a field holds what the protocol does not allow.
    """
    try:
        message = pb.ServerMessage.FromString(data)
    except DecodeError as fault:
        raise ProtocolError(f"the server sent {len(data)} bytes that are not a message: {fault}") from None
    return messages.ServerMessage(
        welcome=_welcome(message.welcome) if message.HasField("welcome") else None,
        acks=tuple(
            messages.Ack(
                ack.frame_id, ServerInstant(ack.received_server_ns), ServerInstant(ack.sent_server_ns), ack.bytes
            )
            for ack in message.acks
        ),
        results=tuple(_result(result) for result in message.results),
        plan=_plan(message.plan) if message.HasField("plan") else None,
        pongs=tuple(
            messages.Pong(
                ClientInstant(pong.sent_client_ns),
                ServerInstant(pong.received_server_ns),
                ServerInstant(pong.sent_server_ns),
            )
            for pong in message.pongs
        ),
        drain=messages.Drain(message.drain.grace_s, message.drain.reason) if message.HasField("drain") else None,
        error=_error(message.error) if message.HasField("error") else None,
    )


def _welcome(welcome: pb.Welcome) -> messages.Welcome:
    zoo = messages.ZooInfo(
        name=welcome.zoo.name,
        group=welcome.zoo.group,
        variants=tuple(messages.ZooVariant(v.name, v.input_size, v.accuracy) for v in welcome.zoo.variants),
        classes=tuple(welcome.zoo.classes),
    )
    if not zoo.variants:
        raise ProtocolError("the server's welcome names no variants; is it a moonjelly server of this version?")
    for variant in zoo.variants:
        if variant.input_size <= 0:
            raise ProtocolError(f"variant '{variant.name}' in the welcome has input size {variant.input_size}")
    if not welcome.token:
        raise ProtocolError("the server's welcome carries no session token")
    plan = _plan(welcome.plan)
    if plan.variant >= len(zoo.variants):
        raise ProtocolError(f"the welcome plans variant {plan.variant}, but its zoo has {len(zoo.variants)}")
    return messages.Welcome(
        session_id=welcome.session_id,
        token=welcome.token,
        session_ttl_s=welcome.session_ttl_s,
        resumed=welcome.resumed,
        last_frame_id=welcome.last_frame_id,
        zoo=zoo,
        plan=plan,
        max_frame_bytes=welcome.max_frame_bytes,
        max_outstanding=welcome.max_outstanding,
        server_version=welcome.server_version,
        protocol_version=welcome.protocol_version,
    )


def _plan(plan: pb.PlanUpdate) -> messages.PlanUpdate:
    return messages.PlanUpdate(
        version=plan.version,
        placed=plan.placed,
        variant=plan.variant,
        batch=plan.batch,
        device=plan.device,
        reason=plan.reason,
        infer_ms=plan.infer_ms,
        overhead_ms=plan.overhead_ms,
    )


def _result(result: pb.Result) -> messages.Result:
    outcome = _OUTCOMES.get(result.outcome)
    if outcome is None:
        raise ProtocolError(f"result of frame {result.frame_id} has outcome {result.outcome}, which is not defined")
    stages = result.stages
    return messages.Result(
        frame_id=result.frame_id,
        outcome=outcome,
        reason=result.reason,
        detections=_detections(result),
        variant=result.variant,
        next_variant=result.next_variant,
        plan_version=result.plan_version,
        stages=messages.StageTimes(
            uplink_ms=stages.uplink_us / _US_PER_MS,
            dispatch_ms=stages.dispatch_us / _US_PER_MS,
            preprocess_ms=stages.preprocess_us / _US_PER_MS,
            queue_ms=stages.queue_us / _US_PER_MS,
            infer_ms=stages.infer_us / _US_PER_MS,
            respond_ms=stages.respond_us / _US_PER_MS,
            batch=stages.batch,
            device=stages.device,
        ),
        sent_ns=ServerInstant(result.sent_server_ns),
    )


def _detections(result: pb.Result) -> Detections:
    count = len(result.boxes)
    if count == 0:
        return Detections.empty()
    if count > messages.MAX_BOXES:
        raise ProtocolError(
            f"result of frame {result.frame_id} has {count} boxes; at most {messages.MAX_BOXES} are read"
        )
    values = np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in result.boxes], np.float32)
    if not np.isfinite(values).all():
        raise ProtocolError(
            f"result of frame {result.frame_id} has a box with a coordinate or score that is not finite"
        )
    classes = np.array([b.class_id for b in result.boxes], np.int64)
    if classes.max() > np.iinfo(np.int32).max:
        raise ProtocolError(f"result of frame {result.frame_id} has a box of class {classes.max()}")
    return Detections(values[:, :4].copy(), values[:, 4].copy(), classes.astype(np.int32))


def _error(error: pb.Error) -> messages.StreamError:
    return messages.StreamError(code=error.code, message=error.message, frame_id=error.frame_id, fatal=error.fatal)


# -- the server's direction -------------------------------------------------------------------------------------------

_WIRE_OUTCOMES = {outcome: number for number, outcome in _OUTCOMES.items()}


def client_from_wire(data: bytes) -> messages.ClientMessage:
    """A client's message.

    Raises:
        ProtocolError: not such a message, or a field holds what the protocol does not allow.
    """
    if (split := _split_frame(data)) is not None:
        return _read_frame(*split)
    try:
        message = pb.ClientMessage.FromString(data)
    except DecodeError:
        raise ProtocolError(f"{len(data)} bytes that are no message of protocol {messages.PROTOCOL_VERSION}") from None
    kind = message.WhichOneof("kind")
    if kind == "frame":
        return _read_frame(message.frame, message.frame.data)
    if kind == "ping":
        return messages.Ping(ClientInstant(message.ping.sent_client_ns), len(message.ping.padding))
    if kind == "hello":
        return _read_hello(message.hello)
    if kind == "bye":
        return messages.Bye(message.bye.reason)
    raise ProtocolError("a message of no kind; it must be hello, frame, ping or bye")


def _split_frame(data: bytes) -> tuple[pb.Frame, memoryview] | None:
    """A frame without its picture, and the picture in place; ``None`` if the message is anything else.

    The parser would copy the picture twice. Clients write it last. If what is before a tag of that field, whose length
    reaches to the message's end, parses as a whole, then the parser would have come to this tag, too.
    """
    size = len(data)
    if size < _WORTHWHILE_BYTES or data[0] != _FRAME_TAG:
        return None
    length, begin = _read_varint(data, 1)
    if begin + length != size:
        return None
    at = data.find(_DATA_TAG, begin, begin + _LONGEST_HEAD)
    while at >= 0:
        length, picture = _read_varint(data, at + 1)
        if picture + length == size:
            with contextlib.suppress(DecodeError):
                return pb.Frame.FromString(data[begin:at]), memoryview(data)[picture:]
        at = data.find(_DATA_TAG, at + 1, begin + _LONGEST_HEAD)
    return None


_FRAME_TAG = 2 << 3 | 2
_DATA_TAG = bytes([12 << 3 | 2])
_WORTHWHILE_BYTES = 1024
"""Smaller messages are parsed whole as quickly."""
_LONGEST_HEAD = 160
"""All fields of a frame before its picture, at their largest."""


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, of at most 35 bits, and where it ends."""
    value = shift = 0
    while data[at] >= _LONG_VARINT and shift < 28:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def _read_hello(hello: pb.Hello) -> messages.Hello:
    return messages.Hello(
        name=hello.name,
        slo_ms=hello.slo_ms,
        fps=hello.fps,
        group=hello.group or DEFAULT_GROUP,
        resume_token=hello.resume_token,
        bandwidth_bps=_measure("bandwidth_bps", hello.bandwidth_bps),
        one_way_ms=_measure("one_way_ms", hello.one_way_ms),
        protocol_version=hello.protocol_version,
    )


def _read_frame(frame: pb.Frame, picture: bytes | memoryview) -> messages.Frame:
    if frame.encoding != pb.ENCODING_JPEG:
        raise ProtocolError(f"frame {frame.frame_id} has encoding {frame.encoding}; JPEG ({pb.ENCODING_JPEG}) is known")
    offset_ns, bound_ns = None, 0
    if frame.HasField("offset"):
        offset_ns, bound_ns = frame.offset.server_minus_client_ns, frame.offset.bound_ns
    return messages.Frame(
        frame_id=frame.frame_id,
        captured_ns=ClientInstant(frame.captured_client_ns),
        sent_ns=ClientInstant(frame.sent_client_ns),
        width=frame.width,
        height=frame.height,
        variant=frame.variant,
        quality=frame.quality,
        bandwidth_bps=_measure("bandwidth_bps", frame.bandwidth_bps),
        rtt_ms=_measure("rtt_ms", frame.rtt_ms),
        server_minus_client_ns=offset_ns,
        offset_bound_ns=bound_ns,
        data=picture,
    )


def _measure(name: str, value: float) -> float:
    if not 0.0 <= value < math.inf:
        raise ProtocolError(f"{name} is {value}; it must be finite and not negative (0: unknown)")
    return value


def server_to_wire(message: messages.ServerMessage, sent_ns: ServerInstant) -> bytes:
    """A server's message for the wire; acknowledgements, results and pongs in it are stamped ``sent_ns``."""
    # A message is its fields one after the other (protobuf's encoding guide). To write them so spares a copy of every
    # result, an object per box, and all the fields that this message does not have.
    parts: list[bytes] = []
    for ack in message.acks:
        body = pb.Ack(
            frame_id=ack.frame_id, received_server_ns=ack.received_ns, sent_server_ns=sent_ns, bytes=ack.size_bytes
        ).SerializeToString()
        parts += (_ACKS_TAG, _write_varint(len(body)), body)
    for result in message.results:
        body = _write_result(result, sent_ns)
        parts += (_RESULTS_TAG, _write_varint(len(body)), body)
    if message.pongs or message.plan or message.welcome or message.drain or message.error:
        parts.append(_write_others(message, sent_ns))
    return b"".join(parts)


def _write_others(message: messages.ServerMessage, sent_ns: ServerInstant) -> bytes:
    wire = pb.ServerMessage(
        pongs=[
            pb.Pong(sent_client_ns=pong.sent_client_ns, received_server_ns=pong.received_ns, sent_server_ns=sent_ns)
            for pong in message.pongs
        ],
        plan=None if message.plan is None else _write_plan(message.plan),
        welcome=None if message.welcome is None else _write_welcome(message.welcome),
        drain=None if message.drain is None else pb.Drain(grace_s=message.drain.grace_s, reason=message.drain.reason),
        error=None if message.error is None else _write_error(message.error),
    )
    return bytes(wire.SerializeToString())


_ACKS_TAG = bytes([2 << 3 | 2])
_RESULTS_TAG = bytes([3 << 3 | 2])
_FIRST_NUMBER = 3
_BOX_BYTES = 2 + 5 * (1 + 4) + 2
"""One ``Result.boxes`` entry as bytes: its tag and length, five fixed32 fields and a one-byte varint."""


def _write_result(result: messages.Result, sent_ns: ServerInstant) -> bytes:
    stages = result.stages
    head: bytes = pb.Result(
        frame_id=result.frame_id,
        outcome=_WIRE_OUTCOMES[result.outcome],  # type: ignore[arg-type]
        reason=result.reason,
        variant=result.variant,
        next_variant=result.next_variant,
        plan_version=result.plan_version,
        stages=pb.StageTimes(
            uplink_us=_microseconds(stages.uplink_ms),
            dispatch_us=_microseconds(stages.dispatch_ms),
            preprocess_us=_microseconds(stages.preprocess_ms),
            queue_us=_microseconds(stages.queue_ms),
            infer_us=_microseconds(stages.infer_ms),
            respond_us=_microseconds(stages.respond_ms),
            batch=stages.batch,
            device=stages.device,
        ),
        sent_server_ns=sent_ns,
    ).SerializeToString()
    packed = pack(result.detections) if result.packed is None else result.packed
    return head + packed.data


def pack(detections: Detections) -> messages.PackedDetections:
    """The boxes of a result as they go on the wire."""
    return messages.PackedDetections(len(detections), _write_boxes(detections) if len(detections) else b"")


def unpack(packed: messages.PackedDetections) -> Detections:
    """The inverse of :func:`pack`."""
    return _detections(pb.Result.FromString(packed.data))


def _write_boxes(detections: Detections) -> bytes:
    count, classes = len(detections), detections.classes.tolist()
    if min(classes) >= 0 and max(classes) < _LONG_VARINT:
        data = bytearray(_empty_boxes(count))
        numbers: NDArray[np.float32] = np.ndarray((count, 5), "<f4", data, _FIRST_NUMBER, (_BOX_BYTES, 5))
        numbers[:, :4] = detections.boxes
        numbers[:, 4] = detections.scores
        data[_BOX_BYTES - 1 :: _BOX_BYTES] = bytes(classes)
        return bytes(data)
    values = zip(detections.boxes.tolist(), detections.scores.tolist(), classes, strict=True)
    wire = pb.Result(
        boxes=[
            pb.Box(x1=x1, y1=y1, x2=x2, y2=y2, score=score, class_id=class_id)
            for (x1, y1, x2, y2), score, class_id in values
        ]
    )
    return bytes(wire.SerializeToString())


_LONG_VARINT = 128


@lru_cache(maxsize=512)
def _empty_boxes(count: int) -> bytes:
    """``count`` boxes with all but their values."""
    numbers = b"".join(bytes([number << 3 | 5, 0, 0, 0, 0]) for number in range(1, 6))
    return (bytes([4 << 3 | 2, _BOX_BYTES - 2]) + numbers + bytes([6 << 3, 0])) * count


def _write_varint(value: int) -> bytes:
    if value < _LONG_VARINT:
        return bytes((value,))
    data = bytearray()
    while value >= _LONG_VARINT:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _microseconds(duration_ms: float) -> int:
    return int(duration_ms * _US_PER_MS + 0.5)


def _write_plan(plan: messages.PlanUpdate) -> pb.PlanUpdate:
    return pb.PlanUpdate(
        version=plan.version,
        placed=plan.placed,
        variant=plan.variant,
        batch=plan.batch,
        device=plan.device,
        reason=plan.reason,
        infer_ms=plan.infer_ms,
        overhead_ms=plan.overhead_ms,
    )


def _write_welcome(welcome: messages.Welcome) -> pb.Welcome:
    return pb.Welcome(
        protocol_version=welcome.protocol_version,
        session_id=welcome.session_id,
        token=welcome.token,
        session_ttl_s=welcome.session_ttl_s,
        resumed=welcome.resumed,
        last_frame_id=welcome.last_frame_id,
        zoo=pb.Zoo(
            name=welcome.zoo.name,
            group=welcome.zoo.group,
            variants=[
                pb.ZooVariant(name=variant.name, input_size=variant.input_size, accuracy=variant.accuracy)
                for variant in welcome.zoo.variants
            ],
            classes=welcome.zoo.classes,
        ),
        plan=_write_plan(welcome.plan),
        max_frame_bytes=welcome.max_frame_bytes,
        max_outstanding=welcome.max_outstanding,
        server_version=welcome.server_version,
    )


def _write_error(error: messages.StreamError) -> pb.Error:
    return pb.Error(code=error.code, message=error.message, frame_id=error.frame_id, fatal=error.fatal)
