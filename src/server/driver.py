"""Between the deciding core and the world: events in, instructions carried out, one timer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from moonjelly.units import NS_PER_MS
from server import ipc
from server.core import Core
from server.core import events as ev
from server.endpoint import Endpoint
from server.logs import LogWriter
from server.processes import ExecutorLink, PlannerLink
from server.records import Record

_log = logging.getLogger(__name__)


class Driver:
    """Feeds the core and does what it says. Everything happens in the event loop's thread.

    Args:
        core: decides.
        executors: by device id.
    """

    def __init__(
        self,
        core: Core,
        executors: Sequence[ExecutorLink],
        planner: PlannerLink,
        logs: LogWriter,
        endpoint: Endpoint,
    ) -> None:
        self._core = core
        self._executors = executors
        self._loop = asyncio.get_running_loop()
        self._events: deque[ev.Event] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._records: list[Record] = []
        self._logs = logs
        self._later: asyncio.Handle | None = None
        self._actions: dict[type, Callable[[Any], None]] = {
            ev.Send: lambda instruction: endpoint.send(instruction.stream, instruction.item),
            ev.SubmitFrame: self._submit,
            ev.Record: lambda instruction: self._records.append(instruction.what),
            ev.EndStream: lambda instruction: endpoint.end(instruction.stream),
            ev.MoveFrame: self._move,
            ev.Tell: lambda instruction: executors[instruction.device].send(instruction.message),
            ev.AskPlanner: lambda instruction: planner.ask(instruction.request),
            ev.RestartPlanner: lambda _: planner.kill(),
            ev.RestartDevice: self._restart_device,
        }

    def emit(self, event: ev.Event) -> None:
        """Have ``event`` handled; one that comes up meanwhile waits for its turn."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                now_ns = time.monotonic_ns()
                for instruction in self._core.handle(self._events.popleft(), now_ns):
                    self._actions[type(instruction)](instruction)
        finally:
            self._busy = False
        if self._later is None:
            self._later = self._loop.call_soon(self._after_turn)

    def executor_message(self, message: ipc.Message) -> None:
        """Something from an executor."""
        if isinstance(message, ipc.Batch):
            self.emit(ev.BatchFinished(message))
        elif isinstance(message, ipc.Switched):
            self.emit(ev.VariantSwitched(message))
        elif isinstance(message, ipc.Speed):
            self.emit(ev.SpeedMeasured(message))
        elif isinstance(message, ipc.Trouble):
            _log.error("device %d: %s", message.device, message.error)

    def executor_down(self, device: int, reason: str, running: frozenset[int]) -> None:
        """An executor has died."""
        _log.error("the executor of device %d died: %s; another one starts", device, reason)
        self.emit(ev.DeviceDown(device, reason, running))

    def close(self) -> None:
        """Hand over the last telemetry; no more timers."""
        if self._later is not None:
            self._later.cancel()
        self._log()
        if self._timer is not None:
            self._timer.cancel()

    def _submit(self, instruction: ev.SubmitFrame) -> None:
        executor = self._executors[instruction.device]
        executor.arena.write(instruction.submit.slot, instruction.data)
        executor.submit(instruction.submit)

    def _move(self, instruction: ev.MoveFrame) -> None:
        data = self._executors[instruction.dead].arena.read(instruction.dead_slot, instruction.submit.length)
        executor = self._executors[instruction.device]
        executor.arena.write(instruction.submit.slot, data)
        executor.submit(instruction.submit)

    def _restart_device(self, instruction: ev.RestartDevice) -> None:
        _log.error("device %d is restarted: %s", instruction.device, instruction.reason)
        self._executors[instruction.device].kill()

    def _after_turn(self) -> None:
        """What no client waits for, once for all events of a turn of the loop, and after the writers that they woke."""
        self._later = None
        self._log()
        self._arm()

    def _log(self) -> None:
        for record in self._records:
            self._logs.write(record)
        self._records.clear()

    def _arm(self) -> None:
        """One timer, for the earliest thing; one that fires too early only looks again."""
        wake_ns = self._core.wake_ns()
        if wake_ns is None or (self._timer is not None and self._timer_ns <= wake_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = wake_ns
        delay_ms = max(0, math.ceil((wake_ns - time.monotonic_ns()) / NS_PER_MS))  # the loop's timers are that coarse
        self._timer = self._loop.call_later(delay_ms / 1000.0, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.emit(ev.Woken())
