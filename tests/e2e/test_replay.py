"""A live server's log through the simulation: the same decisions."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from moonjelly import dispatching
from moonjelly.repository import load_zoo
from moonjelly.telemetry import DispatchRow, read_rows
from moonjelly.types import DEFAULT_GROUP, Outcome
from simulation import replay
from tests.support.serving import WireClient, counting, jpeg, running_server, welcomed, write_zoo

pytestmark = pytest.mark.asyncio(loop_scope="session")
PICTURE = jpeg(64)
ROUNDS = 13
FRAMES = 3 * ROUNDS


async def stream(port: int, number: int, group: str = DEFAULT_GROUP) -> None:
    """Three frames at a time, until so many have been answered in time: a new plan may cost some."""
    slo_ms = 20_000.0 + 100.0 * number
    async with welcomed(port, name=f"camera {number}", slo_ms=slo_ms, group=group) as client:
        await client.placed()
        in_time = 0
        for turn in counting():
            frame_ids = range(3 * turn, 3 * turn + 3)
            for frame_id in frame_ids:
                await client.frame(frame_id, PICTURE)
            for frame_id in frame_ids:
                in_time += (await client.result(frame_id)).outcome is Outcome.ON_TIME
            if in_time >= FRAMES:
                break


async def test_a_live_servers_decisions_come_out_the_same(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        await asyncio.gather(*(stream(server.port, number) for number in range(6)))

    recording = replay.read_recording(tmp_path / "server")
    assert len(recording.frames) >= 6 * FRAMES
    profile = load_zoo(tmp_path / "zoo").profile("paper-gpu")
    agreement = replay.ask_again(recording, {DEFAULT_GROUP: profile}, dispatching.DEFAULT)
    assert agreement.decisions >= ROUNDS
    assert agreement.mismatches == ()

    measured = replay.measured(recording)
    predicted = replay.predicted(recording, {DEFAULT_GROUP: profile}, dispatching.DEFAULT, 1.0, seed=0)
    assert predicted.ran + predicted.dropped == len(recording.frames)
    assert measured.ran >= 6 * FRAMES


async def test_an_overloaded_servers_decisions_come_out_the_same(tmp_path: Path) -> None:
    """Deadlines pass while a batch runs: the server answers those frames before the executor lets go of them."""

    async def burst(client: WireClient, first: int) -> list[str]:
        for frame_id in range(first, first + 10):
            await client.frame(frame_id, PICTURE)
        return [(await client.result(frame_id)).reason for frame_id in range(first, first + 10)]

    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path))
        clients = [
            await stack.enter_async_context(
                welcomed(server.port, name=f"camera {number}", slo_ms=1500.0 + 50.0 * number)
            )
            for number in range(4)
        ]
        for client in clients:
            await client.placed()
        await asyncio.gather(*(burst(client, 1) for client in clients))
        waited = 0
        for turn in counting():
            with server.standing_still():  # a batch that takes longer than the deadlines
                late = await asyncio.gather(*(burst(client, 10 * turn + 1) for client in clients))
            waited += sum("waited for device 0" in reason for reasons in late for reason in reasons)
            if waited >= 20:  # on a machine that stands still, too, frames are late when they come
                break
        await asyncio.gather(*(burst(client, 10 * turn + 11) for client in clients))

    decisions = list(read_rows(tmp_path / "server" / "dispatch.csv", DispatchRow))
    assert sum(len(row.overdue.split()) for row in decisions) >= 20
    recording = replay.read_recording(tmp_path / "server")
    profile = load_zoo(tmp_path / "zoo").profile("paper-gpu")
    agreement = replay.ask_again(recording, {DEFAULT_GROUP: profile}, dispatching.DEFAULT)
    assert agreement.decisions >= 2
    assert agreement.mismatches == ()


async def test_two_groups_come_out_the_same_while_devices_change_between_them(tmp_path: Path) -> None:
    zoos = {
        "a": write_zoo(tmp_path / "a", name="first"),
        "b": write_zoo(tmp_path / "b", name="second", latencies_ms=(4.0, 6.0)),
    }
    with running_server(tmp_path, "--zoo", f"b={zoos['b']}", zoo=f"a={zoos['a']}", devices=2) as server:
        first = asyncio.ensure_future(asyncio.gather(*(stream(server.port, number, "a") for number in range(3))))
        later = asyncio.gather(*(stream(server.port, number, "b") for number in range(3)))
        await first
        await later

    recording = replay.read_recording(tmp_path / "server")
    assert {row.group for row in recording.frames} == {"a", "b"}
    profiles = {group: load_zoo(place).profile("paper-gpu") for group, place in zoos.items()}
    agreement = replay.ask_again(recording, profiles, dispatching.DEFAULT)
    assert agreement.decisions >= ROUNDS
    assert agreement.mismatches == ()
    predicted = replay.predicted(recording, profiles, dispatching.DEFAULT, 1.0, seed=0)
    assert predicted.ran + predicted.dropped == len(recording.frames)
    with pytest.raises(replay.ReplayError, match="frames of group 'b'; there are profiles of a"):
        replay.ask_again(recording, {"a": profiles["a"]}, dispatching.DEFAULT)
