from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_JPEG: _ClassVar[Encoding]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_ON_TIME: _ClassVar[Outcome]
    OUTCOME_LATE: _ClassVar[Outcome]
    OUTCOME_SKIPPED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
    OUTCOME_DROPPED: _ClassVar[Outcome]
    OUTCOME_LOST: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
ENCODING_UNSPECIFIED: Encoding
ENCODING_JPEG: Encoding
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_ON_TIME: Outcome
OUTCOME_LATE: Outcome
OUTCOME_SKIPPED: Outcome
OUTCOME_REJECTED: Outcome
OUTCOME_DROPPED: Outcome
OUTCOME_LOST: Outcome
OUTCOME_FAILED: Outcome

class ClientMessage(_message.Message):
    __slots__ = ("hello", "frame", "ping", "bye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    frame: Frame
    ping: Ping
    bye: Bye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "acks", "results", "plan", "pongs", "drain", "error")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PONGS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    plan: PlanUpdate
    pongs: _containers.RepeatedCompositeFieldContainer[Pong]
    drain: Drain
    error: Error
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., plan: _Optional[_Union[PlanUpdate, _Mapping]] = ..., pongs: _Optional[_Iterable[_Union[Pong, _Mapping]]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "name", "group", "slo_ms", "fps", "resume_token", "bandwidth_bps", "one_way_ms")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SLO_MS_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BPS_FIELD_NUMBER: _ClassVar[int]
    ONE_WAY_MS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    name: str
    group: str
    slo_ms: float
    fps: float
    resume_token: bytes
    bandwidth_bps: float
    one_way_ms: float
    def __init__(self, protocol_version: _Optional[int] = ..., name: _Optional[str] = ..., group: _Optional[str] = ..., slo_ms: _Optional[float] = ..., fps: _Optional[float] = ..., resume_token: _Optional[bytes] = ..., bandwidth_bps: _Optional[float] = ..., one_way_ms: _Optional[float] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "session_id", "token", "session_ttl_s", "resumed", "last_frame_id", "zoo", "plan", "max_frame_bytes", "max_outstanding", "server_version")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SESSION_TTL_S_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    LAST_FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    ZOO_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    session_id: int
    token: bytes
    session_ttl_s: float
    resumed: bool
    last_frame_id: int
    zoo: Zoo
    plan: PlanUpdate
    max_frame_bytes: int
    max_outstanding: int
    server_version: str
    def __init__(self, protocol_version: _Optional[int] = ..., session_id: _Optional[int] = ..., token: _Optional[bytes] = ..., session_ttl_s: _Optional[float] = ..., resumed: _Optional[bool] = ..., last_frame_id: _Optional[int] = ..., zoo: _Optional[_Union[Zoo, _Mapping]] = ..., plan: _Optional[_Union[PlanUpdate, _Mapping]] = ..., max_frame_bytes: _Optional[int] = ..., max_outstanding: _Optional[int] = ..., server_version: _Optional[str] = ...) -> None: ...

class Zoo(_message.Message):
    __slots__ = ("name", "group", "variants", "classes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: str
    variants: _containers.RepeatedCompositeFieldContainer[ZooVariant]
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., group: _Optional[str] = ..., variants: _Optional[_Iterable[_Union[ZooVariant, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class ZooVariant(_message.Message):
    __slots__ = ("name", "input_size", "accuracy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIZE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    name: str
    input_size: int
    accuracy: float
    def __init__(self, name: _Optional[str] = ..., input_size: _Optional[int] = ..., accuracy: _Optional[float] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("frame_id", "captured_client_ns", "sent_client_ns", "encoding", "width", "height", "variant", "quality", "bandwidth_bps", "rtt_ms", "offset", "data")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_CLIENT_NS_FIELD_NUMBER: _ClassVar[int]
    SENT_CLIENT_NS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_BPS_FIELD_NUMBER: _ClassVar[int]
    RTT_MS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    captured_client_ns: int
    sent_client_ns: int
    encoding: Encoding
    width: int
    height: int
    variant: int
    quality: int
    bandwidth_bps: float
    rtt_ms: float
    offset: ClockOffset
    data: bytes
    def __init__(self, frame_id: _Optional[int] = ..., captured_client_ns: _Optional[int] = ..., sent_client_ns: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., variant: _Optional[int] = ..., quality: _Optional[int] = ..., bandwidth_bps: _Optional[float] = ..., rtt_ms: _Optional[float] = ..., offset: _Optional[_Union[ClockOffset, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ClockOffset(_message.Message):
    __slots__ = ("server_minus_client_ns", "bound_ns")
    SERVER_MINUS_CLIENT_NS_FIELD_NUMBER: _ClassVar[int]
    BOUND_NS_FIELD_NUMBER: _ClassVar[int]
    server_minus_client_ns: int
    bound_ns: int
    def __init__(self, server_minus_client_ns: _Optional[int] = ..., bound_ns: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("frame_id", "received_server_ns", "sent_server_ns", "bytes")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    SENT_SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    received_server_ns: int
    sent_server_ns: int
    bytes: int
    def __init__(self, frame_id: _Optional[int] = ..., received_server_ns: _Optional[int] = ..., sent_server_ns: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("frame_id", "outcome", "reason", "boxes", "variant", "next_variant", "plan_version", "stages", "sent_server_ns")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    NEXT_VARIANT_FIELD_NUMBER: _ClassVar[int]
    PLAN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    SENT_SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    outcome: Outcome
    reason: str
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    variant: int
    next_variant: int
    plan_version: int
    stages: StageTimes
    sent_server_ns: int
    def __init__(self, frame_id: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., variant: _Optional[int] = ..., next_variant: _Optional[int] = ..., plan_version: _Optional[int] = ..., stages: _Optional[_Union[StageTimes, _Mapping]] = ..., sent_server_ns: _Optional[int] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x1", "y1", "x2", "y2", "score", "class_id")
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    class_id: int
    def __init__(self, x1: _Optional[float] = ..., y1: _Optional[float] = ..., x2: _Optional[float] = ..., y2: _Optional[float] = ..., score: _Optional[float] = ..., class_id: _Optional[int] = ...) -> None: ...

class StageTimes(_message.Message):
    __slots__ = ("uplink_us", "dispatch_us", "preprocess_us", "queue_us", "infer_us", "respond_us", "batch", "device")
    UPLINK_US_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_US_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    INFER_US_FIELD_NUMBER: _ClassVar[int]
    RESPOND_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    uplink_us: int
    dispatch_us: int
    preprocess_us: int
    queue_us: int
    infer_us: int
    respond_us: int
    batch: int
    device: int
    def __init__(self, uplink_us: _Optional[int] = ..., dispatch_us: _Optional[int] = ..., preprocess_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., infer_us: _Optional[int] = ..., respond_us: _Optional[int] = ..., batch: _Optional[int] = ..., device: _Optional[int] = ...) -> None: ...

class PlanUpdate(_message.Message):
    __slots__ = ("version", "placed", "variant", "batch", "device", "reason", "infer_ms", "overhead_ms", "latency_factor")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FACTOR_FIELD_NUMBER: _ClassVar[int]
    version: int
    placed: bool
    variant: int
    batch: int
    device: int
    reason: str
    infer_ms: float
    overhead_ms: float
    latency_factor: float
    def __init__(self, version: _Optional[int] = ..., placed: _Optional[bool] = ..., variant: _Optional[int] = ..., batch: _Optional[int] = ..., device: _Optional[int] = ..., reason: _Optional[str] = ..., infer_ms: _Optional[float] = ..., overhead_ms: _Optional[float] = ..., latency_factor: _Optional[float] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("sent_client_ns", "padding")
    SENT_CLIENT_NS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    sent_client_ns: int
    padding: bytes
    def __init__(self, sent_client_ns: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("sent_client_ns", "received_server_ns", "sent_server_ns")
    SENT_CLIENT_NS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    SENT_SERVER_NS_FIELD_NUMBER: _ClassVar[int]
    sent_client_ns: int
    received_server_ns: int
    sent_server_ns: int
    def __init__(self, sent_client_ns: _Optional[int] = ..., received_server_ns: _Optional[int] = ..., sent_server_ns: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("grace_s", "reason")
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    reason: str
    def __init__(self, grace_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "frame_id", "fatal")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    FATAL_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    frame_id: int
    fatal: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., frame_id: _Optional[int] = ..., fatal: _Optional[bool] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
