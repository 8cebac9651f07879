"""What travels on the native stream, as domain types (``protos/serving.proto``, ``docs/wire.md``).

Only :mod:`~moonjelly.rpc.client_wire`, :mod:`~moonjelly.rpc.server_wire` and :mod:`~moonjelly.rpc.boxes` know both
these and the generated protobuf classes. Frozen msgspec structs: several are made per frame (docs/adr/0008).
"""

from __future__ import annotations

import msgspec

from moonjelly.types import DEFAULT_GROUP, Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant

PROTOCOL_VERSION = 1
SERVICE = "moonjelly.v1.Serving"
STREAM_METHOD = f"/{SERVICE}/Stream"


class Hello(msgspec.Struct, frozen=True):
    """First message of every stream: registers a client, or resumes its session when ``resume_token`` is set."""

    name: str
    slo_ms: float
    fps: float
    group: str = DEFAULT_GROUP
    resume_token: bytes = b""
    bandwidth_bps: float = 0.0
    one_way_ms: float = 0.0
    protocol_version: int = PROTOCOL_VERSION


class Frame(msgspec.Struct, frozen=True):
    """One encoded frame on its way to the server.

    Attributes:
        width: of the encoded picture, pixels.
        height: of the encoded picture, pixels.
        variant: index into the zoo that the frame was sized for.
        bandwidth_bps: the client's estimate of its uplink; 0: unknown.
        rtt_ms: its estimate of the unloaded round trip; 0: unknown.
        server_minus_client_ns: clock offset, ``None`` until known; it is within +- ``offset_bound_ns``.
        data: JPEG; a view into the message where it was read off the wire.
    """

    frame_id: int
    captured_ns: ClientInstant
    sent_ns: ClientInstant
    width: int
    height: int
    variant: int
    quality: int
    bandwidth_bps: float
    rtt_ms: float
    server_minus_client_ns: int | None
    offset_bound_ns: int
    data: bytes | memoryview


class Ping(msgspec.Struct, frozen=True):
    """Asks for a :class:`Pong`.

    Attributes:
        sent_ns: comes back in the pong.
        padding_bytes: that it carries for its size alone.
    """

    sent_ns: ClientInstant
    padding_bytes: int = 0


class Bye(msgspec.Struct, frozen=True):
    """The client leaves for good: its session ends at once."""

    reason: str = ""


ClientMessage = Hello | Frame | Ping | Bye


class ZooVariant(msgspec.Struct, frozen=True):
    """What a client needs to know of a variant.

    Attributes:
        name: as logs and results name it.
        input_size: side in pixels of the square that it takes.
        accuracy: profiled, in [0, 1].
    """

    name: str
    input_size: int
    accuracy: float


class ZooInfo(msgspec.Struct, frozen=True):
    """The zoo of the client's group.

    Attributes:
        name: of the zoo.
        group: model group that it serves.
        variants: in increasing accuracy and cost; frames and plans refer to them by index.
        classes: names by class index, as in ``Detections.classes``.
    """

    name: str
    group: str
    variants: tuple[ZooVariant, ...]
    classes: tuple[str, ...]


class PlanUpdate(msgspec.Struct, frozen=True):
    """The plan for one client.

    Attributes:
        version: of the plan; higher ones are newer.
        placed: false when the client is rejected; ``reason`` says why.
        variant: index to size frames for.
        batch: planned batch size of the client's device.
        device: number of that device.
        infer_ms: profiled percentile of the planned variant and batch.
        overhead_ms: the server's own share beside waiting and inference.
        latency_factor: batches that a frame waits for, its own included; 0: not said.
    """

    version: int
    placed: bool
    variant: int
    batch: int = 1
    device: int = 0
    reason: str = ""
    infer_ms: float = 0.0
    overhead_ms: float = 0.0
    latency_factor: float = 0.0


class Welcome(msgspec.Struct, frozen=True):
    """The server's answer to :class:`Hello`.

    Attributes:
        token: resumes this session within ``session_ttl_s`` of its loss.
        last_frame_id: highest id received so far, when resumed.
        max_frame_bytes: larger frames are refused; 0: not said.
        max_outstanding: frames that may wait for their result; 0: not said.
    """

    session_id: int
    token: bytes
    session_ttl_s: float
    resumed: bool
    last_frame_id: int
    zoo: ZooInfo
    plan: PlanUpdate
    max_frame_bytes: int
    max_outstanding: int
    server_version: str
    protocol_version: int = PROTOCOL_VERSION


class Ack(msgspec.Struct, frozen=True):
    """A frame has been read off the wire."""

    frame_id: int
    received_ns: ServerInstant
    sent_ns: ServerInstant
    size_bytes: int


class StageTimes(msgspec.Struct, frozen=True):
    """Where a frame spent its time, milliseconds, not negative and below an hour.

    Attributes:
        uplink_ms: capture to reception, by the clock offset.
        dispatch_ms: reception to the executor.
        preprocess_ms: decode and resize.
        queue_ms: decoded to the start of its batch.
        infer_ms: inference and NMS of the batch.
        respond_ms: end of inference to the answer.
        batch: frames in its batch; 0: it ran in none.
        device: number of the device.
    """

    uplink_ms: float = 0.0
    dispatch_ms: float = 0.0
    preprocess_ms: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    respond_ms: float = 0.0
    batch: int = 0
    device: int = 0

    @property
    def server_ms(self) -> float:
        """Reception to answer."""
        return self.dispatch_ms + self.preprocess_ms + self.queue_ms + self.infer_ms + self.respond_ms


class PackedDetections(msgspec.Struct, frozen=True):
    """Boxes as they go on the wire, made by :func:`moonjelly.rpc.boxes.pack` where there is time for it."""

    count: int
    data: bytes


class Result(msgspec.Struct, frozen=True, eq=False):
    """The server's answer to one frame; exactly one per frame that it received.

    Attributes:
        outcome: by the server's clock; the client judges lateness on its own.
        reason: in words, for everything but ``ON_TIME``.
        variant: index that answered it.
        next_variant: index to size the next frame for.
        packed: instead of ``detections``, for writing.
    """

    frame_id: int
    outcome: Outcome
    reason: str
    detections: Detections
    variant: int
    next_variant: int
    plan_version: int
    stages: StageTimes
    sent_ns: ServerInstant
    packed: PackedDetections | None = None


class Pong(msgspec.Struct, frozen=True):
    """Answer to a :class:`Ping`, for the clock offset."""

    sent_client_ns: ClientInstant
    received_ns: ServerInstant
    sent_ns: ServerInstant


class Drain(msgspec.Struct, frozen=True):
    """The server will stop: no new frames."""

    grace_s: float
    reason: str


class StreamError(msgspec.Struct, frozen=True):
    """Something about the stream or a message is wrong.

    Attributes:
        code: name of a gRPC status code.
        frame_id: 0: not about one frame.
        fatal: the stream ends.
    """

    code: str
    message: str
    frame_id: int = 0
    fatal: bool = False


class ServerMessage(msgspec.Struct, frozen=True, eq=False):
    """Whatever was ready when the stream could be written."""

    welcome: Welcome | None = None
    acks: tuple[Ack, ...] = ()
    results: tuple[Result, ...] = ()
    plan: PlanUpdate | None = None
    pongs: tuple[Pong, ...] = ()
    drain: Drain | None = None
    error: StreamError | None = None


__all__ = [
    "PROTOCOL_VERSION",
    "SERVICE",
    "STREAM_METHOD",
    "Ack",
    "Bye",
    "ClientMessage",
    "Drain",
    "Frame",
    "Hello",
    "PackedDetections",
    "Ping",
    "PlanUpdate",
    "Pong",
    "Result",
    "ServerMessage",
    "StageTimes",
    "StreamError",
    "Welcome",
    "ZooInfo",
    "ZooVariant",
]
