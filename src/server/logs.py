"""Telemetry: gathered by the endpoint, made into rows, formatted and written by a process of its own.

Formatting thousands of rows a second in a thread would hold up the event loop, whatever the thread's priority. So
records cross to a writer process a few times a second, few enough at a time that no frame waits for them. It ends when
its channel does, after having written everything that reached it: when the server is killed, no more than the last
tenth of a second is lost. When it dies itself, another one carries its files on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from moonjelly.errors import ConfigError
from moonjelly.telemetry import CsvLog, DispatchRow, PlanRow, ServerFrameRow, set_aside
from server import ipc
from server.channel import Channel, inherited
from server.processes import ProcessLink, Restarts, StartError
from server.records import DispatchRecord, FrameRecord, Record

_log = logging.getLogger(__name__)
_Record = TypeVar("_Record", FrameRecord, DispatchRecord)
_FILES: dict[type[Any], str] = {
    ServerFrameRow: "frame_stats.csv",
    PlanRow: "plans.csv",
    DispatchRow: "dispatch.csv",
}
SUMMARY_FILE = "summary.json"
_GATHER_S = 0.03
_ROWS_PER_MESSAGE = 128
"""So many of a kind take the endpoint less than 0.1 ms, and fit into a message on any host."""
_MAX_BACKLOG = 2_000
"""Messages that may wait for the writer."""
_MAX_WAITING_ROWS = 200_000
"""Rows that may wait for the next writer while there is none."""
_PATIENCE_S = 30.0
_NICENESS = 10
"""Of the writer: whatever answers a frame comes first on a busy machine."""


class LogWriter:
    """The endpoint's side.

    Args:
        directory: of the files; made when missing. What an earlier server left there is set aside.

    Raises:
        ConfigError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            set_aside(directory, (*_FILES.values(), SUMMARY_FILE))
        except OSError as fault:
            raise ConfigError(f"logs cannot go to {directory}: {fault}; choose another place with --out") from fault
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._frames: list[FrameRecord] = []
        self._plans: list[PlanRow] = []
        self._dispatches: list[DispatchRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._lost = 0
        self._restarts = Restarts("the process that writes telemetry", self._resume)
        self._link: ProcessLink | None = self._start(resumed=False)

    async def ready(self) -> None:
        """Wait until the files are open.

        Raises:
            StartError: they cannot be.
        """
        if self._link is not None:
            await self._link.ready()
            self._restarts.held()

    def write(self, record: Record) -> None:
        """Take one record; its row is on disk within a tenth of a second."""
        if isinstance(record, FrameRecord):
            self._frames.append(record)
        elif isinstance(record, DispatchRecord):
            self._dispatches.append(record)
        else:
            self._plans.append(record)
        if self._waiting() >= _ROWS_PER_MESSAGE:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._gathered)

    async def close(self) -> None:
        """Write what is left and wait until it is on disk."""
        self._restarts.stop()
        if self._link is None and self._waiting():
            try:
                await self._resume()
            except StartError as fault:
                _log.error("telemetry cannot be written: %s", fault)
        while self._link is not None and self._waiting():
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            await self._link.sent()
            await self._link.stop(_PATIENCE_S)
        self._lost += self._waiting()
        if self._lost:
            _log.error("%d rows of telemetry were lost: their writer died, or the disk did not keep up", self._lost)

    def _start(self, *, resumed: bool) -> ProcessLink:
        configure = ipc.ConfigureLogs(str(self._directory), resumed)
        return ProcessLink("server.logs", configure, (), _ignore, self._died, bound=False)

    async def _resume(self) -> None:
        """Have another process carry the files on; what reached the dead one and is not in them is lost."""
        link = self._start(resumed=True)
        try:
            ready = await link.ready()
        except asyncio.CancelledError:
            link.kill()
            raise
        assert isinstance(ready, ipc.LogsReady)
        lost = max(0, self._sent - ready.rows)
        _log.error("telemetry is written again; %d rows were lost", lost)
        self._sent = ready.rows
        self._lost += lost
        self._link = link
        self._flush()

    def _waiting(self) -> int:
        return len(self._frames) + len(self._dispatches) + len(self._plans)

    def _gathered(self) -> None:
        self._timer = None
        if self._waiting():
            self._flush()

    def _flush(self) -> None:
        """Hand one message over of what has gathered; without a writer it waits for one, up to a limit."""
        if self._link is None and self._waiting() < _MAX_WAITING_ROWS:
            return
        message = ipc.LogRows(
            tuple(self._frames[:_ROWS_PER_MESSAGE]),
            tuple(self._plans[:_ROWS_PER_MESSAGE]),
            tuple(self._dispatches[:_ROWS_PER_MESSAGE]),
        )
        for waiting in (self._frames, self._plans, self._dispatches):
            del waiting[:_ROWS_PER_MESSAGE]
        rows = len(message.frames) + len(message.plans) + len(message.dispatches)
        if self._link is None or self._link.backlog >= _MAX_BACKLOG:
            self._lost += rows
        else:
            self._link.send(message)
            self._sent += rows
        if self._waiting() and self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._gathered)

    def _died(self, reason: str) -> None:
        _log.error("the process that writes telemetry died: %s; another one starts", reason)
        self._link = None
        self._restarts.again()


def _ignore(message: ipc.Message) -> None:
    """The writer says nothing after that it is ready."""


def main() -> None:
    """``python -m server.logs FD PARENT``: write rows until the endpoint goes."""
    os.nice(_NICENESS)
    with inherited() as channel:
        configure = channel.receive()
        assert isinstance(configure, ipc.ConfigureLogs)
        directory = Path(configure.directory)
        try:
            logs = {kind: CsvLog(directory / name, kind, resumed=configure.resumed) for kind, name in _FILES.items()}
        except OSError as fault:
            channel.send(ipc.Refused(f"logs cannot go to {directory}: {fault}", ConfigError.exit_code))
            return
        try:
            channel.send(ipc.LogsReady(sum(log.rows for log in logs.values())))
            write_rows(channel, logs)
        except OSError as fault:
            sys.exit(f"telemetry cannot be written to {directory}: {fault}")
        finally:
            for log in logs.values():
                log.close()


def write_rows(channel: Channel, logs: dict[type[Any], CsvLog[Any]]) -> None:
    """Until the channel ends.

    Raises:
        PeerGone: it has.
    """
    while True:
        message = channel.receive()
        if isinstance(message, ipc.LogRows):
            logs[ServerFrameRow].write_all(record.row() for record in _giving_way(message.frames))
            logs[PlanRow].write_all(message.plans)
            logs[DispatchRow].write_all(record.row() for record in _giving_way(message.dispatches))


def _giving_way(records: Iterable[_Record]) -> Iterator[_Record]:
    """Let others run between any two: what wakes up on this core would wait for the rest of a time slice, whatever the
    priorities, and that is several times as long as a frame takes."""
    for record in records:
        os.sched_yield()
        yield record


if __name__ == "__main__":
    main()
