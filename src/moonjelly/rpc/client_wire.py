"""The client's messages on the wire: written by the client, read by the server.

Reading is strict: whatever the wire does not allow raises :class:`~moonjelly.errors.ProtocolError`, whose text
names the field and its value.
"""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError

from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages, varint
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import DEFAULT_GROUP
from moonjelly.units import ClientInstant

_FRAME_TAG = 2 << 3 | 2
_DATA_TAG = bytes([12 << 3 | 2])
_WORTHWHILE_BYTES = 1024
"""Smaller messages are parsed whole as quickly."""
_LONGEST_HEAD = 160
"""All fields of a frame before its picture, at their largest."""


def write(message: messages.ClientMessage) -> bytes:
    """A client's message for the wire."""
    return bytes(_message(message).SerializeToString())


def _message(message: messages.ClientMessage) -> pb.ClientMessage:
    if isinstance(message, messages.Frame):
        return pb.ClientMessage(frame=_write_frame(message))
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


def _write_frame(frame: messages.Frame) -> pb.Frame:
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


def read(data: bytes) -> messages.ClientMessage:
    """A client's message from the wire.

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
    length, begin = varint.read(data, 1)
    if begin + length != size:
        return None
    at = data.find(_DATA_TAG, begin, begin + _LONGEST_HEAD)
    while at >= 0:
        length, picture = varint.read(data, at + 1)
        if picture + length == size:
            try:
                return pb.Frame.FromString(data[begin:at]), memoryview(data)[picture:]
            except DecodeError:
                pass  # this was no tag, but part of a field before it
        at = data.find(_DATA_TAG, at + 1, begin + _LONGEST_HEAD)
    return None


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
