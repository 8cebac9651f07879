"""The only file that knows both protobuf and domain types.

Reading is strict: whatever the wire does not allow raises :class:`~moonjelly.errors.ProtocolError`, whose text
names the field and its value.
"""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError

from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import Detections, Outcome
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
        return pb.ClientMessage(ping=pb.Ping(sent_client_ns=message.sent_ns))
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
        data=frame.data,
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
