"""A client's frames from their source to their records."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from client.encoding import LiveEncoder
from client.feed import RecordedFeed
from client.pacing import Schedule
from client.progress import Progress
from client.records import Records
from client.sources import Picture
from client.sources.recorded import Pictures
from client.stopping import StopRequest
from client.streamer import Streamer
from moonjelly.clock import MonotonicClock
from moonjelly.sdk import AsyncClient, EncodedFrame
from moonjelly.sdk.encoding import MAX_SIDE
from moonjelly.telemetry import FrameRow, read_rows
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant
from tests.support.stub_server import stub_server

SLO_MS = 20_000.0
"""Generous: what is tested is not speed."""
FPS = 10.0


class BrokenEncoder(LiveEncoder):
    """One with a defect."""

    async def encode(self, picture: Picture, size: int, variant: int, quality: int) -> EncodedFrame:
        raise ZeroDivisionError(f"{size}")


async def stream(width: int, encoder: LiveEncoder, folder: Path, ticks: int | None = 3) -> list[FrameRow]:
    """A picture of that width again and again; the rows that are logged of it."""
    path, clock = folder / "picture.png", MonotonicClock()
    cv2.imwrite(str(path), np.zeros((64, width, 3), np.uint8))
    feed = RecordedFeed(Pictures("pictures", [path]), FPS)
    records = Records(folder / "out", 0, SLO_MS, 2)
    try:
        async with (
            stub_server() as server,
            AsyncClient(f"127.0.0.1:{server.port}", slo_ms=SLO_MS, fps=FPS, clock=clock) as client,
        ):
            schedule = Schedule(ClientInstant(clock.now_ns()), FPS, ticks)
            await Streamer(client, feed, encoder, records, Progress(0), clock).run(schedule, StopRequest())
    finally:
        await feed.close()
        encoder.close()
        records.close()
    return list(read_rows(folder / "out" / "frame_stats.csv", FrameRow))


async def test_every_tick_is_logged_once(tmp_path: Path) -> None:
    assert len(await stream(64, LiveEncoder(), tmp_path)) == 3


async def test_a_picture_that_cannot_be_encoded_fails_with_its_reason(tmp_path: Path) -> None:
    rows = await stream(MAX_SIDE + 1, LiveEncoder(), tmp_path)
    assert len(rows) == 3
    for row in rows:
        # On a host that stood still some ticks are passed over before they get to the encoder.
        assert row.outcome in (Outcome.FAILED, Outcome.SKIPPED)
        assert row.outcome is Outcome.SKIPPED or f"1..{MAX_SIDE} pixels on a side" in row.reason


async def test_a_defect_ends_the_stream(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        await stream(64, BrokenEncoder(), tmp_path, ticks=None)
