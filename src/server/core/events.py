"""What happens to the core, and what it wants done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moonjelly.rpc import messages
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from server import ipc

# -- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """A stream's first message. ``token`` is fresh, for the session if it becomes a new one."""

    stream: int
    hello: messages.Hello
    token: bytes


@dataclass(frozen=True, eq=False, slots=True)
class FrameReceived:
    """A frame has been read off the wire at ``received_ns``."""

    stream: int
    frame: messages.Frame
    received_ns: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A ping has been read off the wire at ``received_ns``."""

    stream: int
    ping: messages.Ping
    received_ns: int


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The client leaves for good."""

    stream: int


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message could not be read."""

    stream: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class InputEnded:
    """The client sends no more on this stream; or it broke, and :class:`StreamClosed` follows."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The stream has ended, however it did."""

    stream: int


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """An executor has answered frames."""

    batch: ipc.Batch


@dataclass(frozen=True, slots=True)
class DeviceUp:
    """An executor is warm; it serves variant 0 of ``group``."""

    device: int
    kind: str
    group: str


@dataclass(frozen=True, slots=True)
class DeviceDown:
    """An executor has died. ``running``: slots whose frames were in its batch."""

    device: int
    reason: str
    running: frozenset[int]


@dataclass(frozen=True, slots=True)
class VariantSwitched:
    """An executor runs another variant."""

    switched: ipc.Switched


@dataclass(frozen=True, slots=True)
class PlanMade:
    """The planner has answered."""

    reply: ipc.PlanReply


@dataclass(frozen=True, slots=True)
class PlannerLost:
    """The planner has died; another one starts."""


@dataclass(frozen=True, slots=True)
class DrainBegan:
    """The server will stop."""

    grace_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Woken:
    """The instant of :meth:`Core.wake_ns` has come."""


Event = (
    Joined
    | FrameReceived
    | PingReceived
    | ByeReceived
    | MessageRefused
    | InputEnded
    | StreamClosed
    | BatchFinished
    | DeviceUp
    | DeviceDown
    | VariantSwitched
    | PlanMade
    | PlannerLost
    | DrainBegan
    | Woken
)

# -- instructions -----------------------------------------------------------------------------------------------------

Item = (
    messages.Welcome
    | messages.Ack
    | messages.Result
    | messages.PlanUpdate
    | messages.Pong
    | messages.Drain
    | messages.StreamError
)


@dataclass(frozen=True, eq=False, slots=True)
class Send:
    """Put ``item`` into the stream's next message."""

    stream: int
    item: Item


@dataclass(frozen=True, slots=True)
class EndStream:
    """End the stream once everything sent to it is written."""

    stream: int


@dataclass(frozen=True, eq=False, slots=True)
class SubmitFrame:
    """Put ``data`` into the device's slot and tell its executor."""

    device: int
    submit: ipc.Submit
    data: bytes


@dataclass(frozen=True, slots=True)
class MoveFrame:
    """Copy a slot of a dead executor to a slot of another one and tell that one."""

    dead: int
    dead_slot: int
    device: int
    submit: ipc.Submit


@dataclass(frozen=True, slots=True)
class Tell:
    """Send ``message`` to the executor of ``device``."""

    device: int
    message: ipc.Serve | ipc.Forget


@dataclass(frozen=True, slots=True)
class AskPlanner:
    """Send the request to the planner."""

    request: ipc.PlanRequest


@dataclass(frozen=True, slots=True)
class RestartDevice:
    """Its executor has held a frame for too long: kill it, another one starts."""

    device: int
    reason: str


@dataclass(frozen=True, slots=True)
class RestartPlanner:
    """It has not answered for too long: kill it and start another."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write a row of telemetry. ``make`` builds it later, when nobody waits for an answer."""

    make: Callable[[], ServerFrameRow | PlanRow | DispatchRow]


Instruction = Send | EndStream | SubmitFrame | MoveFrame | Tell | AskPlanner | RestartDevice | RestartPlanner | Record
