"""Frames as an embedding program sees them: encoded, withheld, ended."""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.rpc.messages import StageTimes
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ns_to_ms


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame as it goes on the wire.

    Attributes:
        data: JPEG of ``width`` x ``height`` pixels.
        variant: index into ``AsyncClient.zoo.variants`` that it was sized for.
        quality: JPEG quality, 1..100.
        encode_ms: what resizing and encoding took.
    """

    data: bytes
    width: int
    height: int
    variant: int
    quality: int
    encode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Withheld:
    """A frame that is not to be sent.

    Attributes:
        outcome: that it has thereby.
        reason: in words.
        may_pass: whether the link can lift it while the frame still has time.
    """

    outcome: Outcome
    reason: str
    may_pass: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class FrameResult:
    """The one outcome of one captured frame. Instants are on the client's monotonic clock.

    Attributes:
        frame_id: its number, from 1, in order of capture as told to the client.
        outcome: ``ON_TIME`` and ``LATE`` are judged on the client's clock: capture to result against the SLO.
        reason: in words, for everything but ``ON_TIME``.
        detections: boxes as fractions of the frame; empty unless it was answered.
        captured_ns: when it was captured, as told to the client.
        sent_ns: when it was handed to the stream, ``None`` if it never was.
        received_ns: when its result was read, ``None`` without one.
        desired_variant: that it was sized for; empty if it was not encoded.
        used_variant: that answered it; empty without an answer.
        next_variant: that the server asked for at that time; empty before the first plan.
        accuracy: profiled accuracy of the variant that answered on time, else 0.
        input_size: side in pixels of the square that was sent; this and the next three are ``None`` if nothing was.
        quality: JPEG quality, 1..100.
        wire_bytes: size of the encoded frame.
        encode_ms: what resizing and encoding took.
        network_ms: end-to-end latency less the server's and the client's own shares.
        bandwidth_bps: uplink estimate when it was decided what to send; ``None``: not known yet.
        rtt_ms: estimate of the unloaded round trip at that time, likewise.
        stages: where it spent its time, ``None`` without an answer.
    """

    frame_id: int
    outcome: Outcome
    reason: str
    detections: Detections
    captured_ns: ClientInstant
    sent_ns: ClientInstant | None = None
    received_ns: ClientInstant | None = None
    desired_variant: str = ""
    used_variant: str = ""
    next_variant: str = ""
    accuracy: float = 0.0
    input_size: int | None = None
    quality: int | None = None
    wire_bytes: int | None = None
    encode_ms: float | None = None
    network_ms: float | None = None
    bandwidth_bps: float | None = None
    rtt_ms: float | None = None
    stages: StageTimes | None = None

    @property
    def latency_ms(self) -> float | None:
        """Capture to result, ``None`` without one."""
        return None if self.received_ns is None else ns_to_ms(self.received_ns - self.captured_ns)
