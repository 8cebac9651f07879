"""The process that writes telemetry dies, and what waits for the next one is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from moonjelly.rpc.messages import StageTimes
from moonjelly.telemetry import ServerFrameRow, read_rows
from moonjelly.types import Outcome
from server.logs import LogWriter
from server.records import FrameRecord

ROWS = 20_000
"""Several times what one message between processes holds."""


def record(frame_id: int) -> FrameRecord:
    return FrameRecord(
        1, frame_id, 0, 10, 1.0, StageTimes(), 1e6, 1e6, 100, 0, 1, "", Outcome.DROPPED, "late", None, 0, "default"
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("closed", ["at once", "when there is another writer"])
async def test_more_rows_than_a_message_holds_wait_for_the_next_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, closed: str
) -> None:
    logs = LogWriter(tmp_path)
    await logs.ready()
    (writer,) = (child for child in psutil.Process().children() if "server.logs" in child.cmdline())
    writer.kill()
    while "the process that writes telemetry died" not in caplog.text:
        await asyncio.sleep(0.01)
    for frame_id in range(1, ROWS + 1):
        logs.write(record(frame_id))
    while closed != "at once" and "telemetry is written again" not in caplog.text:
        await asyncio.sleep(0.01)
    await logs.close()
    assert [row.frame_id for row in read_rows(tmp_path / "frame_stats.csv", ServerFrameRow)] == [*range(1, ROWS + 1)]
    assert "were lost: their writer died" not in caplog.text
