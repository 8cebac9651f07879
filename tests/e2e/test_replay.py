"""A live server's log through the simulation: the same decisions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moonjelly import dispatching
from moonjelly.repository import load_zoo
from moonjelly.types import Outcome
from simulation import replay
from tests.support.serving import jpeg, running_server, welcomed

pytestmark = pytest.mark.asyncio(loop_scope="session")
PICTURE = jpeg(64)
FRAMES = 39


async def stream(port: int, number: int) -> list[Outcome]:
    """Three frames at a time."""
    async with welcomed(port, name=f"camera {number}", slo_ms=400.0 + 100.0 * number) as client:
        await client.placed()
        outcomes = []
        for first in range(1, FRAMES + 1, 3):
            for frame_id in range(first, first + 3):
                await client.frame(frame_id, PICTURE)
            outcomes += [(await client.result(frame_id)).outcome for frame_id in range(first, first + 3)]
        return outcomes


async def test_a_live_servers_decisions_come_out_the_same(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        answers = await asyncio.gather(*(stream(server.port, number) for number in range(6)))
    assert sum(map(len, answers)) == 6 * FRAMES

    recording = replay.read_recording(tmp_path / "server")
    assert len(recording.frames) > 3 * FRAMES
    profile = load_zoo(tmp_path / "zoo").profile("paper-gpu")
    agreement = replay.ask_again(recording, profile, dispatching.DEFAULT)
    assert agreement.decisions > 20
    assert agreement.mismatches == ()

    measured = replay.measured(recording)
    predicted = replay.predicted(recording, profile, dispatching.DEFAULT, 1.0, seed=0)
    assert predicted.ran + predicted.dropped == len(recording.frames)
    assert measured.ran > 0
