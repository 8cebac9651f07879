"""Telemetry to CSV files, written in a thread of its own so that no frame waits for a disk."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

from moonjelly.telemetry import CsvLog, DispatchRow, PlanRow, ServerFrameRow

FILES: dict[type[Any], str] = {
    ServerFrameRow: "frame_stats.csv",
    PlanRow: "plans.csv",
    DispatchRow: "dispatch.csv",
}
_GATHER_S = 0.1


class LogWriter:
    """Takes rows from the event loop and writes them in bursts.

    Rows are on disk a tenth of a second after they were given; a killed server loses no more than that.

    Args:
        directory: of the files; made when missing.
    """

    def __init__(self, directory: Path) -> None:
        self._logs = {kind: CsvLog(directory / name, kind) for kind, name in FILES.items()}
        self._rows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def write(self, row: ServerFrameRow | PlanRow | DispatchRow) -> None:
        """Hand over one row."""
        self._rows.put(row)

    def close(self) -> None:
        """Write what is left and close the files."""
        self._closing.set()
        self._rows.put(None)
        self._thread.join()
        for log in self._logs.values():
            log.close()

    def _run(self) -> None:
        while True:
            rows: dict[type[Any], list[Any]] = {}
            row = self._rows.get()
            self._closing.wait(_GATHER_S)
            while row is not None:
                rows.setdefault(type(row), []).append(row)
                row = self._rows.get() if not self._rows.empty() else None
            for kind, batch in rows.items():
                self._logs[kind].write_all(batch)
            if self._closing.is_set() and self._rows.empty():
                return
