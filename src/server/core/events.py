"""What happens to the core, and what it wants done: frozen structs, some of them several per frame (docs/adr/0009)."""

from __future__ import annotations

import msgspec

from moonjelly.rpc import messages
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from server import ipc, records

# -- events -----------------------------------------------------------------------------------------------------------


class Joined(msgspec.Struct, frozen=True):
    """A stream's first message. ``token`` is fresh, for the session if it becomes a new one."""

    stream: int
    hello: messages.Hello
    token: bytes


class FrameReceived(msgspec.Struct, frozen=True, eq=False):
    """A frame has been read off the wire at ``received_ns``."""

    stream: int
    frame: messages.Frame
    received_ns: int


class PingReceived(msgspec.Struct, frozen=True):
    """A ping has been read off the wire at ``received_ns``."""

    stream: int
    ping: messages.Ping
    received_ns: int


class ByeReceived(msgspec.Struct, frozen=True):
    """The client leaves for good."""

    stream: int


class MessageRefused(msgspec.Struct, frozen=True):
    """A message could not be read."""

    stream: int
    code: str
    text: str


class InputEnded(msgspec.Struct, frozen=True):
    """The client sends no more on this stream; or it broke, and :class:`StreamClosed` follows."""

    stream: int


class StreamClosed(msgspec.Struct, frozen=True):
    """The stream has ended, however it did."""

    stream: int


class BatchFinished(msgspec.Struct, frozen=True):
    """An executor has answered frames."""

    batch: ipc.Batch


class DeviceUp(msgspec.Struct, frozen=True):
    """An executor is warm; it serves variant 0 of ``group``."""

    device: int
    kind: str
    group: str


class DeviceDown(msgspec.Struct, frozen=True):
    """An executor has died. ``running``: slots whose frames were in its batch."""

    device: int
    reason: str
    running: frozenset[int]


class VariantSwitched(msgspec.Struct, frozen=True):
    """An executor runs another variant."""

    switched: ipc.Switched


class SpeedMeasured(msgspec.Struct, frozen=True):
    """A device is faster or slower than it was."""

    measured: ipc.Speed


class PlanMade(msgspec.Struct, frozen=True):
    """The planner has answered."""

    reply: ipc.PlanReply


class PlannerLost(msgspec.Struct, frozen=True):
    """The planner has died; another one starts."""


class DrainBegan(msgspec.Struct, frozen=True):
    """The server will stop."""

    grace_s: float
    reason: str


class Woken(msgspec.Struct, frozen=True):
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
    | SpeedMeasured
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


class Send(msgspec.Struct, frozen=True, eq=False):
    """Put ``item`` into the stream's next message."""

    stream: int
    item: Item


class EndStream(msgspec.Struct, frozen=True):
    """End the stream once everything sent to it is written."""

    stream: int


class SubmitFrame(msgspec.Struct, frozen=True, eq=False):
    """Put ``data`` into the device's slot and tell its executor."""

    device: int
    submit: ipc.Submit
    data: bytes | memoryview


class MoveFrame(msgspec.Struct, frozen=True):
    """Copy a slot of a dead executor to a slot of another one and tell that one."""

    dead: int
    dead_slot: int
    device: int
    submit: ipc.Submit


class Tell(msgspec.Struct, frozen=True):
    """Send ``message`` to the executor of ``device``."""

    device: int
    message: ipc.Serve | ipc.Forget


class AskPlanner(msgspec.Struct, frozen=True):
    """Send the request to the planner."""

    request: ipc.PlanRequest


class RestartDevice(msgspec.Struct, frozen=True):
    """Its executor holds a frame far beyond its deadline: kill it, another one starts."""

    device: int
    reason: str


class RestartPlanner(msgspec.Struct, frozen=True):
    """It has not answered for too long: kill it and start another."""


class Record(msgspec.Struct, frozen=True):
    """Have a row of telemetry written."""

    what: records.Record

    def make(self) -> ServerFrameRow | PlanRow | DispatchRow:
        """The row."""
        return self.what if isinstance(self.what, PlanRow) else self.what.row()


Instruction = Send | EndStream | SubmitFrame | MoveFrame | Tell | AskPlanner | RestartDevice | RestartPlanner | Record
