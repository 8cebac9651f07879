"""The server's messages on the wire: written by the server, read by the client.

Reading is strict: whatever the wire does not allow raises :class:`~moonjelly.errors.ProtocolError`, whose text
names the field and its value.
"""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError

from moonjelly.errors import ProtocolError
from moonjelly.rpc import boxes, messages, varint
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import Outcome
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
_WIRE_OUTCOMES = {outcome: number for number, outcome in _OUTCOMES.items()}
_ACKS_TAG = bytes([2 << 3 | 2])
_RESULTS_TAG = bytes([3 << 3 | 2])


# -- writing ----------------------------------------------------------------------------------------------------------


def write(message: messages.ServerMessage, sent_ns: ServerInstant) -> bytes:
    """A server's message for the wire; acknowledgements, results and pongs in it are stamped ``sent_ns``."""
    # A message is its fields one after the other (protobuf's encoding guide). To write them so spares a copy of every
    # result, an object per box, and all the fields that this message does not have.
    parts: list[bytes] = []
    for ack in message.acks:
        body = pb.Ack(
            frame_id=ack.frame_id, received_server_ns=ack.received_ns, sent_server_ns=sent_ns, bytes=ack.size_bytes
        ).SerializeToString()
        parts += (_ACKS_TAG, varint.write(len(body)), body)
    for result in message.results:
        body = _write_result(result, sent_ns)
        parts += (_RESULTS_TAG, varint.write(len(body)), body)
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
    packed = boxes.pack(result.detections) if result.packed is None else result.packed
    return head + packed.data


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
        latency_factor=plan.latency_factor,
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


# -- reading ----------------------------------------------------------------------------------------------------------


def read(data: bytes) -> messages.ServerMessage:
    """A server's message from the wire.

    Raises:
        ProtocolError: not a message, or a field holds what the protocol does not allow.
    """
    try:
        message = pb.ServerMessage.FromString(data)
    except DecodeError as fault:
        raise ProtocolError(f"the server sent {len(data)} bytes that are not a message: {fault}") from None
    return messages.ServerMessage(
        welcome=_read_welcome(message.welcome) if message.HasField("welcome") else None,
        acks=tuple(
            messages.Ack(
                ack.frame_id, ServerInstant(ack.received_server_ns), ServerInstant(ack.sent_server_ns), ack.bytes
            )
            for ack in message.acks
        ),
        results=tuple(_read_result(result) for result in message.results),
        plan=_read_plan(message.plan) if message.HasField("plan") else None,
        pongs=tuple(
            messages.Pong(
                ClientInstant(pong.sent_client_ns),
                ServerInstant(pong.received_server_ns),
                ServerInstant(pong.sent_server_ns),
            )
            for pong in message.pongs
        ),
        drain=messages.Drain(message.drain.grace_s, message.drain.reason) if message.HasField("drain") else None,
        error=_read_error(message.error) if message.HasField("error") else None,
    )


def _read_welcome(welcome: pb.Welcome) -> messages.Welcome:
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
    plan = _read_plan(welcome.plan)
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


def _read_plan(plan: pb.PlanUpdate) -> messages.PlanUpdate:
    if not 0.0 <= plan.latency_factor < math.inf:
        raise ProtocolError(
            f"plan {plan.version} has latency factor {plan.latency_factor}; 2 is usual, 0 means unknown"
        )
    return messages.PlanUpdate(
        version=plan.version,
        placed=plan.placed,
        variant=plan.variant,
        batch=plan.batch,
        device=plan.device,
        reason=plan.reason,
        infer_ms=plan.infer_ms,
        overhead_ms=plan.overhead_ms,
        latency_factor=plan.latency_factor,
    )


def _read_result(result: pb.Result) -> messages.Result:
    outcome = _OUTCOMES.get(result.outcome)
    if outcome is None:
        raise ProtocolError(f"result of frame {result.frame_id} has outcome {result.outcome}, which is not defined")
    stages = result.stages
    return messages.Result(
        frame_id=result.frame_id,
        outcome=outcome,
        reason=result.reason,
        detections=boxes.read(result),
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


def _read_error(error: pb.Error) -> messages.StreamError:
    return messages.StreamError(code=error.code, message=error.message, frame_id=error.frame_id, fatal=error.fatal)
