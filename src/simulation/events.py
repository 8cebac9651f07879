"""What happens in a simulated run, and the queue of what is to happen."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from moonjelly.adaptation import PlanView
from moonjelly.network import ClockOffset
from moonjelly.planning.problem import Plan, Problem
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant, ServerInstant


@dataclass(eq=False, slots=True)
class Frame:
    """One captured frame on its way; filled in as it goes. Instants are the simulation's (the server's clock) but for
    those typed otherwise.

    Attributes:
        key: unique in the run.
        channel: number of the client's connection that carries it.
        variant: index that it was sized for.
        bandwidth_bps, rtt_ms, offset: the client's estimates, as carried by the frame.
        kept: whether it was served as planned; ``None``: it did not come in time for that.
        outcome: as the server sees it, until the client has judged it.
    """

    key: int
    client_id: int
    frame_id: int
    channel: int
    captured: ClientInstant
    variant: int
    quality: int
    size_bytes: int
    encode_ms: float
    sent: ClientInstant
    bandwidth_bps: float
    rtt_ms: float
    offset: ClockOffset | None
    received: ServerInstant
    ingest_ms: float = 0.0
    uplink_ms: float = 0.0
    estimated_bps: float = 0.0
    deadline_ns: int = 0
    device: int = -1
    queued_ns: int | None = None
    started_ns: int = 0
    ended_ns: int = 0
    batch: int = 0
    used_variant: int | None = None
    kept: bool | None = None
    outcome: Outcome | None = None
    reason: str = ""
    next_variant: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """A client connects."""

    client_id: int


@dataclass(frozen=True, slots=True)
class Left:
    """A client says goodbye."""

    client_id: int


@dataclass(frozen=True, slots=True)
class Captured:
    """A client's camera yields a frame."""

    client_id: int
    frame_id: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame is handed to the client's stream."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Received:
    """A frame's last byte is at the server."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A frame's acknowledgement is at the client."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class PingDue:
    """A client measures its round trip, and keeps an answer due."""

    client_id: int
    channel: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A ping is at the server, which answers at once; ``delay_ns`` is what its answer takes."""

    client_id: int
    channel: int
    sent: ClientInstant
    delay_ns: int


@dataclass(frozen=True, slots=True)
class PongReturned:
    """The answer to a ping is at the client."""

    client_id: int
    channel: int
    sent: ClientInstant
    received: ServerInstant


@dataclass(frozen=True, slots=True)
class LookDue:
    """A client may have waited for too long for an answer."""

    client_id: int


@dataclass(frozen=True, slots=True)
class ReconnectDue:
    """A client attempts to open a new channel."""

    client_id: int


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A client has a new channel after an outage."""

    client_id: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame is ready to run."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class DeviceWoken:
    """A dispatcher's instant has come; only the latest one asked for counts."""

    device: int
    number: int


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """A device has run its batch."""

    device: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame's answer is at the client."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class PlanDue:
    """A planning run is due; only the earliest one asked for counts."""

    number: int


@dataclass(frozen=True, eq=False, slots=True)
class PlanMade:
    """A plan takes effect."""

    problem: Problem
    plan: Plan


@dataclass(frozen=True, slots=True)
class PlanHeard:
    """A client hears of its place in the plan."""

    client_id: int
    view: PlanView


Event = (
    Joined
    | Left
    | Captured
    | Encoded
    | Received
    | Acknowledged
    | PingDue
    | PingReceived
    | PongReturned
    | LookDue
    | ReconnectDue
    | ChannelOpened
    | Decoded
    | DeviceWoken
    | BatchEnded
    | Answered
    | PlanDue
    | PlanMade
    | PlanHeard
)


@dataclass(slots=True)
class Agenda:
    """Events by instant; those of one instant in the order in which they were added."""

    now_ns: int = 0
    _heap: list[tuple[int, int, Event]] = field(default_factory=list)
    _added: int = 0

    def add(self, at_ns: int, event: Event) -> None:
        """Let ``event`` happen at ``at_ns``, not before the present."""
        self._added += 1
        heapq.heappush(self._heap, (max(at_ns, self.now_ns), self._added, event))

    def pop(self) -> Event | None:
        """Move on to the next event; ``None`` when nothing is to happen any more."""
        if not self._heap:
            return None
        self.now_ns, _, event = heapq.heappop(self._heap)
        return event
