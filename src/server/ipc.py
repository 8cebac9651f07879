"""Messages between the processes of one server, and how they are encoded.

Frozen dataclasses, msgpack, one tag byte in front. Nothing here is pickled, and a peer of another version cannot be
on the other end: the endpoint starts both ends from one clone. Instants are nanoseconds of the host's monotonic
clock, which all processes of a host share.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import msgspec

from moonjelly.errors import ProtocolError
from moonjelly.planning.problem import Plan, Problem
from moonjelly.rpc.messages import PackedDetections
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome

# -- endpoint to executor ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """First message to an executor process.

    Attributes:
        device: id of the device in plans.
        runtime: ``torch``, ``onnx`` or ``simulated``.
        device_index: which of the host's devices of that runtime.
        kind: device kind whose profile a simulated executor follows.
        zoos: group to zoo directory.
        answers: group to the recorded answers of a simulated device; other groups' are synthetic.
        max_batch: largest batch to warm.
        resident: variants of one group that stay loaded around the active one; 0 means all.
        threads: of the runtime.
        decoders: threads that decode and preprocess on arrival.
        speed: factor on the profile.
        scale: factor on a simulated device's latencies; 0 answers at once.
        slots: of the arena, whose descriptor is ``arena_fd``.
        slot_bytes: size of one slot.
        max_pixels: pictures larger than this are refused before they are decoded.
    """

    device: int
    runtime: str
    device_index: int
    kind: str
    zoos: dict[str, str]
    answers: dict[str, str]
    dispatcher: str
    max_batch: int
    resident: int
    threads: int
    decoders: int
    speed: float
    scale: float
    seed: int
    arena_fd: int
    slots: int
    slot_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Submit:
    """One frame, whose bytes lie in ``slot`` of the arena.

    Attributes:
        key: names the frame between endpoint and executor.
        deadline_ns: latest instant at which its inference may end.
        received_ns: when the endpoint had read it off the wire.
        width: of the picture as the client announced it.
        height: likewise.
    """

    key: int
    slot: int
    length: int
    session: int
    frame_id: int
    group: str
    width: int
    height: int
    received_ns: int
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Serve:
    """What the device shall run from its next batch on."""

    plan_version: int
    group: str
    variant: int
    batch: int


@dataclass(frozen=True, slots=True)
class Forget:
    """The client of ``session`` has gone: answer its waiting frames without running them."""

    session: int


# -- executor to endpoint ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The executor is warm and takes frames."""

    device: int
    kind: str
    name: str
    runtime: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """The process cannot start, and why."""

    error: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Answer:
    """How one frame ended at the executor; its slot is free again.

    Attributes:
        detections: boxes as they go on the wire, packed where their number costs the endpoint nothing.
    """

    key: int
    outcome: Outcome
    reason: str
    detections: PackedDetections
    queued_ns: int
    preprocess_ns: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One decision of the executor: frames that ran or were dropped together.

    Attributes:
        variant: index in the group's zoo of the one that ran.
        planned_variant: of the one that the plan runs here.
        fallbacks: faster ones that could have run instead.
        queue: frames in the queue at the decision.
        head_slack_ms: to the earliest deadline at the decision.
        decided_ns: when it was decided.
        started_ns: begin of inference; ``ended_ns``: its end. Equal for drops.
    """

    device: int
    group: str
    variant: int
    planned_variant: int
    fallbacks: tuple[int, ...]
    planned_batch: int
    queue: int
    head_slack_ms: float
    decided_ns: int
    started_ns: int
    ended_ns: int
    ran: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Switched:
    """The device runs this variant from now on."""

    device: int
    plan_version: int
    group: str
    variant: int
    resident: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something failed that did not stop the executor (a variant that cannot be loaded)."""

    device: int
    error: str


# -- planner ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigurePlanner:
    """First message to the planner process. ``budget_ms``: what a run may take."""

    policy: str
    seed: int
    budget_ms: float


@dataclass(frozen=True, slots=True)
class PlannerReady:
    """The policy is loaded. ``policy`` names it."""

    policy: str


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Plan this; the answer carries the same ``run``."""

    run: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class PlanReply:
    """The plan, or why there is none."""

    run: int
    plan: Plan | None
    error: str
    cpu_ms: float


# -- profiler ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigureProfiler:
    """First message to a process that profiles one device; it answers :class:`Ready` or :class:`Refused`.

    Attributes:
        device: which of the host's devices.
        runtime: ``auto``, ``torch``, ``onnx`` or ``simulated``.
        zoo: its directory.
        kind: device kind that a simulated device follows.
        threads: of the runtime.
        seed: of the pictures that are shown, and of a simulated device's jitter.
    """

    device: int
    runtime: str
    zoo: str
    kind: str
    threads: int
    seed: int


@dataclass(frozen=True, slots=True)
class Measure:
    """Run ``batches`` batches of a variant; answered by :class:`Measuring` now and then, at last :class:`Measured`.

    Attributes:
        limit_s: stop before ``batches`` after so long; 0: never.
        max_batch: largest batch that will be asked for.
        processor_time: count the process's processor time instead of the wall's.
    """

    variant: str
    batch: int
    batches: int
    limit_s: float
    max_batch: int
    processor_time: bool


@dataclass(frozen=True, slots=True)
class Measuring:
    """So many batches have run."""

    batches: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of every batch, in order."""

    times_ms: tuple[float, ...]


# -- telemetry --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigureLogs:
    """First message to the process that writes telemetry: where to."""

    directory: str


@dataclass(frozen=True, slots=True)
class LogsReady:
    """The files are open."""


@dataclass(frozen=True, slots=True)
class LogRows:
    """Rows to append, by kind."""

    frames: tuple[ServerFrameRow, ...]
    plans: tuple[PlanRow, ...]
    dispatches: tuple[DispatchRow, ...]


Message = (
    Configure
    | Submit
    | Serve
    | Forget
    | Ready
    | Refused
    | Batch
    | Switched
    | Trouble
    | ConfigurePlanner
    | PlannerReady
    | PlanRequest
    | PlanReply
    | ConfigureProfiler
    | Measure
    | Measuring
    | Measured
    | ConfigureLogs
    | LogsReady
    | LogRows
)

_KINDS: tuple[type[Any], ...] = typing.get_args(Message)
_TAGS = {kind: bytes([tag]) for tag, kind in enumerate(_KINDS)}
_DECODERS = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_encode_body = msgspec.msgpack.Encoder().encode


def encode(message: Message) -> bytes:
    """Tag byte and msgpack."""
    return _TAGS[type(message)] + _encode_body(message)


def decode(data: bytes | memoryview) -> Message:
    """The inverse of :func:`encode`.

    Raises:
        ProtocolError: not such a message.
    """
    if not data or data[0] >= len(_DECODERS):
        raise ProtocolError(f"a message between processes starts with {bytes(data[:1])!r}, which is no known tag")
    try:
        message: Message = _DECODERS[data[0]].decode(memoryview(data)[1:])
    except msgspec.DecodeError as fault:
        raise ProtocolError(f"a {_KINDS[data[0]].__name__} between processes does not decode: {fault}") from fault
    return message
