"""Telemetry: gathered by the endpoint, formatted and written by a process of its own.

Formatting thousands of rows a second in a thread would hold up the event loop, whatever the thread's priority. So
rows cross to a writer process a few times a second. It ends when its channel does, after having written everything
that reached it: when the server is killed, no more than the last tenth of a second is lost.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moonjelly.errors import ConfigError
from moonjelly.telemetry import CsvLog, DispatchRow, PlanRow, ServerFrameRow
from server import ipc
from server.channel import Channel, inherited
from server.processes import ProcessLink

_log = logging.getLogger(__name__)
FILES: dict[type[Any], str] = {
    ServerFrameRow: "frame_stats.csv",
    PlanRow: "plans.csv",
    DispatchRow: "dispatch.csv",
}
_GATHER_S = 0.03
_ROWS_PER_MESSAGE = 500
_MAX_BACKLOG = 400
"""Messages that may wait for the writer."""
_PATIENCE_S = 30.0

Row = ServerFrameRow | PlanRow | DispatchRow


class LogWriter:
    """The endpoint's side.

    Args:
        directory: of the files; made when missing.

    Raises:
        ConfigError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise ConfigError(f"logs cannot go to {directory}: {fault}; choose another place with --out") from fault
        self._loop = asyncio.get_running_loop()
        self._rows: list[Callable[[], Row]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._lost = 0
        self._alive = True
        self._link = ProcessLink("server.logs", ipc.ConfigureLogs(str(directory)), (), _ignore, self._died)

    async def ready(self) -> None:
        """Wait until the files are open.

        Raises:
            StartError: they cannot be.
        """
        await self._link.ready()

    def write(self, make: Callable[[], Row]) -> None:
        """Take one row, to be made when the next message goes to the writer; on disk within a tenth of a second."""
        self._rows.append(make)
        if self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._flush)

    async def close(self) -> None:
        """Write what is left and wait until it is on disk."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        await self._link.sent()
        await self._link.stop(_PATIENCE_S)
        if self._lost:
            _log.error("%d rows of telemetry were lost: the disk did not keep up", self._lost)

    def _flush(self) -> None:
        self._timer = None
        makers, self._rows = self._rows, []
        if self._link.backlog >= _MAX_BACKLOG or not self._alive:
            self._lost += len(makers)
            return
        rows = [make() for make in makers]
        for first in range(0, len(rows), _ROWS_PER_MESSAGE):
            self._link.send(_message(rows[first : first + _ROWS_PER_MESSAGE]))

    def _died(self, reason: str) -> None:
        _log.error("the process that writes telemetry died (%s); no more rows are written", reason)
        self._alive = False


def _message(rows: list[Row]) -> ipc.LogRows:
    return ipc.LogRows(
        frames=tuple(row for row in rows if isinstance(row, ServerFrameRow)),
        plans=tuple(row for row in rows if isinstance(row, PlanRow)),
        dispatches=tuple(row for row in rows if isinstance(row, DispatchRow)),
    )


def _ignore(message: ipc.Message) -> None:
    """The writer says nothing after that it is ready."""


def main() -> None:
    """``python -m server.logs FD PARENT``: write rows until the endpoint goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = inherited()
    configure = channel.receive()
    assert isinstance(configure, ipc.ConfigureLogs)
    try:
        logs = {kind: CsvLog(Path(configure.directory) / name, kind) for kind, name in FILES.items()}
    except OSError as fault:
        channel.send(ipc.Refused(f"logs cannot go to {configure.directory}: {fault}", ConfigError.exit_code))
        return
    channel.send(ipc.LogsReady())
    try:
        write_rows(channel, logs)
    except OSError as fault:
        sys.exit(f"telemetry cannot be written to {configure.directory}: {fault}")
    finally:
        for log in logs.values():
            log.close()


def write_rows(channel: Channel, logs: dict[type[Any], CsvLog[Any]]) -> None:
    """Until the channel ends."""
    while True:
        try:
            message = channel.receive()
        except EOFError:
            return
        if isinstance(message, ipc.LogRows):
            for kind, rows in (
                (ServerFrameRow, message.frames),
                (PlanRow, message.plans),
                (DispatchRow, message.dispatches),
            ):
                if rows:
                    logs[kind].write_all(rows)


if __name__ == "__main__":
    main()
