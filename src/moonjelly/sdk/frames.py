"""The frames of a client that have no outcome yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moonjelly.adaptation import Unacknowledged
from moonjelly.network import LinkEstimate
from moonjelly.rpc.messages import Frame
from moonjelly.sdk.results import EncodedFrame
from moonjelly.units import ClientInstant, ms_to_ns

ANSWER_GRACE_MS = 2000.0
"""How long past its deadline a result on a living stream still counts as late; then the frame is lost."""


@dataclass(slots=True)
class FrameInFlight:
    """An encoded frame between the program that gave it and its outcome.

    Attributes:
        begun: when the program gave it.
        deadline: for its result.
        link: as estimated when it was begun, and again when it was sent.
        sent: when it was handed to the stream, ``None`` until then.
        acked: whether the server has acknowledged it.
    """

    frame_id: int
    captured: ClientInstant
    begun: ClientInstant
    deadline: ClientInstant
    encoded: EncodedFrame
    link: LinkEstimate
    sent: ClientInstant | None = None
    acked: bool = False

    def message(self, now: ClientInstant) -> Frame:
        """As it is handed to the stream at ``now``."""
        offset = self.link.offset
        return Frame(
            frame_id=self.frame_id,
            captured_ns=self.captured,
            sent_ns=now,
            width=self.encoded.width,
            height=self.encoded.height,
            variant=self.encoded.variant,
            quality=self.encoded.quality,
            bandwidth_bps=self.link.bandwidth_bps,
            rtt_ms=self.link.rtt_ms,
            server_minus_client_ns=offset.server_minus_client_ns if offset else None,
            offset_bound_ns=offset.bound_ns if offset else 0,
            data=self.encoded.data,
        )


class FramesInFlight:
    """They are kept in the order of their ids, which is that of their sending."""

    def __init__(self) -> None:
        self._frames: dict[int, FrameInFlight] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[FrameInFlight]:
        """Oldest first; they may be removed meanwhile."""
        return iter(list(self._frames.values()))

    def add(self, frame: FrameInFlight) -> None:
        """A frame is to be sent."""
        self._frames[frame.frame_id] = frame

    def get(self, frame_id: int) -> FrameInFlight | None:
        """``None`` if that frame has ended or never was."""
        return self._frames.get(frame_id)

    def remove(self, frame: FrameInFlight) -> None:
        """It has its outcome."""
        del self._frames[frame.frame_id]

    def unacknowledged(self) -> list[Unacknowledged]:
        """What was sent, or waits to be, and not acknowledged; oldest first."""
        return [
            Unacknowledged(len(frame.encoded.data), frame.begun if frame.sent is None else frame.sent)
            for frame in self._frames.values()
            if not frame.acked
        ]

    def awaits_acknowledgement(self) -> bool:
        """Whether any that was sent is not acknowledged."""
        return any(frame.sent is not None and not frame.acked for frame in self._frames.values())

    def expired(self, now: ClientInstant, connected: bool) -> list[FrameInFlight]:
        """What can no longer be answered; oldest first."""
        return [frame for frame in self._frames.values() if now >= _expiry(frame, connected)]

    def next_expiry(self, connected: bool) -> ClientInstant | None:
        """When :meth:`expired` next has a frame, ``None`` without any."""
        return min((_expiry(frame, connected) for frame in self._frames.values()), default=None)


def _expiry(frame: FrameInFlight, connected: bool) -> ClientInstant:
    """Its deadline; while the server can still answer, :data:`ANSWER_GRACE_MS` later."""
    return ClientInstant(frame.deadline + ms_to_ns(ANSWER_GRACE_MS)) if connected else frame.deadline
