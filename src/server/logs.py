"""Telemetry: gathered by the endpoint, formatted and written by a process of its own.

Formatting thousands of rows a second in a thread would hold up the event loop, whatever the thread's priority. So
rows cross to a writer process a few times a second. It ends when its channel does, after having written everything
that reached it: when the server is killed, at most the last tenth of a second is lost.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

from moonjelly.telemetry import CsvLog, DispatchRow, PlanRow, ServerFrameRow
from server import ipc
from server.channel import Channel, inherited
from server.child import Child, start

_log = logging.getLogger(__name__)
FILES: dict[type[Any], str] = {
    ServerFrameRow: "frame_stats.csv",
    PlanRow: "plans.csv",
    DispatchRow: "dispatch.csv",
}
_GATHER_S = 0.1
_ROWS_PER_MESSAGE = 500
_MAX_WAITING = 200_000
_PATIENCE_S = 30.0

Row = ServerFrameRow | PlanRow | DispatchRow


class LogWriter:
    """The endpoint's side.

    Args:
        directory: of the files; made when missing.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.get_running_loop()
        self._rows: deque[Row] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = 0
        self._child: Child = start("server.logs")
        self._child.channel.set_blocking(False)
        self._child.channel.send(ipc.ConfigureLogs(str(directory)))

    def write(self, row: Row) -> None:
        """Take one row; written within a tenth of a second."""
        self._rows.append(row)
        if self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._flush)

    async def close(self) -> None:
        """Write what is left and wait until it is on disk."""
        if self._timer is not None:
            self._timer.cancel()
        self._child.channel.set_blocking(True)
        while self._rows and self._send():
            pass
        await asyncio.to_thread(self._child.stop, _PATIENCE_S)
        if self._lost:
            _log.error("%d rows of telemetry were lost: the disk did not keep up", self._lost)

    def _flush(self) -> None:
        self._timer = None
        while self._rows and self._send():
            pass
        while len(self._rows) > _MAX_WAITING:
            self._rows.popleft()
            self._lost += 1
        if self._rows:
            self._timer = self._loop.call_later(_GATHER_S, self._flush)

    def _send(self) -> bool:
        """Pass on one message's worth of rows; false when the writer has to catch up first."""
        count = min(len(self._rows), _ROWS_PER_MESSAGE)
        chunk = [self._rows[index] for index in range(count)]
        message = ipc.LogRows(
            frames=tuple(row for row in chunk if isinstance(row, ServerFrameRow)),
            plans=tuple(row for row in chunk if isinstance(row, PlanRow)),
            dispatches=tuple(row for row in chunk if isinstance(row, DispatchRow)),
        )
        try:
            sent = self._child.channel.send(message)
        except EOFError:
            _log.error("the process that writes telemetry has died; %d rows are lost", len(self._rows))
            self._rows.clear()
            return False
        if sent:
            for _ in range(count):
                self._rows.popleft()
        return sent


def main() -> None:
    """``python -m server.logs FD PARENT``: write rows until the endpoint goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = inherited()
    configure = channel.receive()
    assert isinstance(configure, ipc.ConfigureLogs)
    logs = {kind: CsvLog(Path(configure.directory) / name, kind) for kind, name in FILES.items()}
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
