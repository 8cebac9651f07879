"""Messages between the processes of one server, and how they are encoded.

Frozen msgspec structs, on the wire as msgpack arrays that begin with their kind: made, encoded and decoded in C, which
a message per frame needs (docs/adr/0009). Nothing here is pickled, and a peer of another version cannot be on the other
end: the endpoint starts both ends from one clone. Instants are nanoseconds of the host's monotonic clock, which all
processes of a host share.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from moonjelly.errors import ProtocolError
from moonjelly.planning.problem import Plan, Problem
from moonjelly.rpc.messages import PackedDetections
from moonjelly.telemetry import PlanRow
from moonjelly.types import Outcome
from server.records import DispatchRecord, FrameRecord


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What all messages are."""


# -- endpoint to executor ---------------------------------------------------------------------------------------------


class Configure(_Message, frozen=True):
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
        speed: factor on the profile, before anything is measured.
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


class Submit(_Message, frozen=True):
    """One frame, whose bytes lie in ``slot`` of the arena.

    Attributes:
        key: names the frame between endpoint and executor.
        deadline_ns: latest instant at which its inference may end.
        given_ns: when the endpoint handed it over.
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
    given_ns: int
    deadline_ns: int


class Submits(_Message, frozen=True):
    """Several frames at once: one message, and the executor is woken once."""

    frames: tuple[Submit, ...]


class Serve(_Message, frozen=True):
    """What the device shall run from its next batch on."""

    plan_version: int
    group: str
    variant: int
    batch: int


class Forget(_Message, frozen=True):
    """The client of ``session`` has gone: answer its waiting frames without running them."""

    session: int


# -- executor to endpoint ---------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """The executor is warm and takes frames."""

    device: int
    kind: str
    name: str
    runtime: str
    versions: dict[str, str]


class Refused(_Message, frozen=True):
    """The process cannot start, and why."""

    error: str
    exit_code: int


class Answer(_Message, frozen=True):
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


class Batch(_Message, frozen=True):
    """One decision of the executor: frames that ran or were dropped together.

    Attributes:
        variant: index in the group's zoo of the one that ran.
        planned_variant: of the one that the plan runs here.
        fallbacks: variants that were loaded beside the planned one; the dispatcher may run a faster one.
        planned_batch: of the plan; 0 for frames that were withdrawn without asking the dispatcher.
        queue: frames in the queue at the decision.
        head_slack_ms: to the earliest deadline at the decision.
        speed: factor on the profile that the decision counted with.
        reserve_ns: that the decision kept free where it could.
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
    speed: float
    reserve_ns: int
    decided_ns: int
    started_ns: int
    ended_ns: int
    ran: int
    answers: tuple[Answer, ...]


class Switched(_Message, frozen=True):
    """The device runs this variant from now on."""

    device: int
    plan_version: int
    group: str
    variant: int
    resident: tuple[str, ...]


class Speed(_Message, frozen=True):
    """The device is as fast as ``speed`` says from now on, by the batches that it ran: a factor on the profile."""

    device: int
    speed: float


class Trouble(_Message, frozen=True):
    """Something failed that did not stop the executor (a variant that cannot be loaded)."""

    device: int
    error: str


# -- planner ----------------------------------------------------------------------------------------------------------


class ConfigurePlanner(_Message, frozen=True):
    """First message to the planner process. ``budget_ms``: what a run may take."""

    policy: str
    seed: int
    budget_ms: float


class PlannerReady(_Message, frozen=True):
    """The policy is loaded. ``policy`` names it."""

    policy: str


class PlanRequest(_Message, frozen=True):
    """Plan this; the answer carries the same ``run``."""

    run: int
    problem: Problem


class PlanReply(_Message, frozen=True):
    """The plan, or why there is none."""

    run: int
    plan: Plan | None
    error: str
    cpu_ms: float


# -- profiler ---------------------------------------------------------------------------------------------------------


class ConfigureProfiler(_Message, frozen=True):
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


class Measure(_Message, frozen=True):
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


class Measuring(_Message, frozen=True):
    """So many batches have run."""

    batches: int


class Measured(_Message, frozen=True):
    """Milliseconds of every batch, in order."""

    times_ms: tuple[float, ...]


# -- telemetry --------------------------------------------------------------------------------------------------------


class ConfigureLogs(_Message, frozen=True):
    """First message to the process that writes telemetry.

    Attributes:
        directory: of the files.
        resumed: carry on files of an earlier life instead of beginning new ones.
    """

    directory: str
    resumed: bool


class LogsReady(_Message, frozen=True):
    """The files are open, and hold so many rows already."""

    rows: int


class LogRows(_Message, frozen=True):
    """What rows to append are made of, by kind."""

    frames: tuple[FrameRecord, ...]
    plans: tuple[PlanRow, ...]
    dispatches: tuple[DispatchRecord, ...]


Message = (
    Configure
    | Submit
    | Submits
    | Serve
    | Forget
    | Ready
    | Refused
    | Batch
    | Switched
    | Speed
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

encode: Callable[[Message], bytes] = msgspec.msgpack.Encoder().encode
"""A message as bytes."""
_decode: Callable[[bytes | memoryview], Message] = msgspec.msgpack.Decoder(Message).decode


def decode(data: bytes | memoryview) -> Message:
    """The inverse of :func:`encode`.

    Raises:
        ProtocolError: not such a message.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError as fault:
        raise ProtocolError(f"{len(data)} bytes between processes do not decode: {fault}") from fault
