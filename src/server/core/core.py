"""The core: which part handles which event.

Invariants
* Every frame that is acknowledged gets exactly one result.
* A frame is answered at the latest a few milliseconds after its deadline, whatever its device is doing.
* A slot is taken from the frame's submission until its executor has answered it or died.
* A dead executor loses only the frames of its running batch; the others go to another device that can make them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.core import events as ev
from server.core.answers import Answers
from server.core.executors import Executors
from server.core.intake import Intake
from server.core.plans import Plans
from server.core.settings import Settings
from server.core.state import State
from server.core.streams import Streams


class Core:
    """State of the server. Feed it events in order; carry out the instructions in order."""

    def __init__(self, settings: Settings) -> None:
        state = State(settings)
        self._frames, self._planning, self._out = state.frames, state.planning, state.out
        self.sessions = state.sessions
        self.devices = state.devices
        plans = self._plans = Plans(state)
        streams = self._streams = Streams(state, plans)
        answers = self._answers = Answers(state, streams)
        executors = self._executors = Executors(state, plans, answers)
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            ev.FrameReceived: Intake(state, answers, executors).receive,
            ev.BatchFinished: answers.batch,
            ev.PingReceived: streams.ping,
            ev.Joined: streams.join,
            ev.ByeReceived: streams.bye,
            ev.MessageRefused: streams.refused,
            ev.InputEnded: streams.input_ended,
            ev.StreamClosed: streams.closed,
            ev.DrainBegan: streams.drain,
            ev.DeviceUp: executors.up,
            ev.DeviceDown: executors.down,
            ev.VariantSwitched: executors.switched,
            ev.SpeedMeasured: executors.measured,
            ev.PlanMade: plans.made,
            ev.PlannerLost: plans.planner_lost,
            ev.Woken: self._woken,
        }

    def handle(self, event: ev.Event, now_ns: int) -> list[ev.Instruction]:
        """What is to be done about ``event``, which happened at ``now_ns``."""
        out = self._out
        out.clear()
        self._handlers[type(event)](event, now_ns)
        if self._planning.may_start(now_ns):
            self._plans.start(now_ns)
        return out.copy()

    def wake_ns(self) -> int | None:
        """When to send :class:`~server.core.events.Woken`, if nothing else happens before."""
        earliest_ns = self._frames.watch_ns()
        for instant_ns in (
            self._planning.next_ns(periodic=len(self.sessions) > 0),
            self.sessions.next_expiry_ns(),
            self._streams.next_quiet_ns(),
        ):
            if instant_ns is not None and (earliest_ns is None or instant_ns < earliest_ns):
                earliest_ns = instant_ns
        return earliest_ns

    @property
    def plans(self) -> int:
        """Planning runs so far."""
        return self._planning.run

    @property
    def pending_frames(self) -> int:
        """Frames that an executor holds."""
        return len(self._frames)

    def _woken(self, event: ev.Woken, now_ns: int) -> None:
        self._answers.overdue(now_ns)
        self._streams.end_drained(now_ns)
        self._streams.expire(now_ns)
        self._executors.restart_hanging(now_ns)
        self._plans.watch(now_ns)
