"""Processes die and clients vanish; what was not in their hands is served, and nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from moonjelly.rpc import messages
from moonjelly.telemetry import PlanRow, ServerFrameRow
from moonjelly.types import Outcome
from tests.support.serving import (
    Server,
    WireClient,
    connected,
    counting,
    hello,
    jpeg,
    rows_so_far,
    running_server,
    until,
    welcomed,
    write_zoo,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
PICTURE = jpeg(64)
SLOW_MS = (40.0, 60.0, 90.0, 130.0)


def executors(server: Server) -> list[psutil.Process]:
    """By device, whatever the order in which they were started: each holds its device's frames."""

    def frames(process: psutil.Process) -> str:
        held = (os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir())
        return next(file for file in held if "moonjelly-frames-" in file)

    return sorted(server.children("server.executor"), key=frames)


def latest(client: WireClient) -> int:
    """The frame that was answered last."""
    return client.received[-1].results[-1].frame_id


async def settled(client: WireClient, first: int = 1) -> messages.PlanUpdate:
    """A place at the variant that the plan means to keep, after frames from ``first`` on."""
    await client.placed()
    for frame_id in counting(first):
        await client.frame(frame_id, PICTURE)
        result = await client.result(frame_id)
        plans = [message.plan for message in client.received if message.plan]
        if plans and result.variant == plans[-1].variant and result.stages.device == plans[-1].device:
            return plans[-1]
    raise AssertionError("counting never ends")


async def test_an_executor_killed_in_mid_batch_loses_only_its_batch(tmp_path: Path) -> None:
    zoo = write_zoo(tmp_path / "zoo", latencies_ms=SLOW_MS)
    with running_server(tmp_path, zoo=zoo, devices=2) as server:
        async with welcomed(server.port, name="victim") as client, welcomed(server.port, name="witness") as other:
            first = 1
            for _ in counting():
                await settled(client, first)
                await settled(other, first)
                first = max(map(latest, (client, other))) + 1
                device, lost = await killed_in_mid_batch(server, client, other, first)
                for frame_id in counting(first + 10):  # it comes back, and is used
                    for one in (client, other):
                        await one.frame(frame_id, PICTURE)
                    both = [await one.result(frame_id) for one in (client, other)]
                    assert {result.outcome for result in both} == {Outcome.ON_TIME}
                    if device in {result.stages.device for result in both}:
                        break
                assert len(executors(server)) == 2
                assert f"the executor of device {device} died: it was killed by SIGKILL" in server.errors()
                if lost:
                    break  # otherwise the batch had ended before its executor could be held
                first = frame_id + 1


async def killed_in_mid_batch(server: Server, client: WireClient, other: WireClient, first: int) -> tuple[int, bool]:
    """The client's device, killed, and whether it had a batch to lose; ``other`` is a witness."""
    for frame_id in range(first, first + 4):
        await client.frame(frame_id, PICTURE)
    device = (await client.result(first)).stages.device  # the other three run now, as one batch
    victim = executors(server)[device]
    victim.suspend()  # so that they still do, however long it takes to send the next ones
    for frame_id in range(first + 4, first + 7):
        await client.frame(frame_id, PICTURE)
    await client.acknowledged(first + 6)
    await other.frame(first, PICTURE)
    victim.kill()
    results = [await client.result(frame_id) for frame_id in range(first + 1, first + 7)]
    lost = [result for result in results if result.outcome is Outcome.FAILED]
    assert {result.reason for result in lost} <= {f"device {device} died with it: it was killed by SIGKILL"}
    saved = [result for result in results if result.outcome is Outcome.ON_TIME]
    waiting = {first + 4, first + 5, first + 6}
    assert {result.frame_id for result in saved} >= waiting
    moved = {result.stages.device for result in saved if result.frame_id in waiting}
    assert moved == {1 - device}, "what had finished before the kill may have been answered by the other"
    assert (await other.result(first)).outcome is Outcome.ON_TIME
    return device, bool(lost)


async def test_a_frame_is_answered_at_its_deadline_whatever_its_device_does(tmp_path: Path) -> None:
    reason = "its deadline passed while it waited for device 0"
    with running_server(tmp_path) as server:
        async with welcomed(server.port, slo_ms=1000.0) as client:
            await settled(client)
            with server.standing_still() as (stuck,):
                for frame_id in counting(latest(client) + 1):
                    await client.frame(frame_id, PICTURE)
                    result = await client.result(frame_id)
                    assert stuck.status() == psutil.STATUS_STOPPED
                    assert result.outcome is Outcome.DROPPED
                    if result.reason == reason:  # otherwise it was too late when it came
                        break
            for again in counting(frame_id + 1):
                await client.frame(again, PICTURE)
                if (await client.result(again)).outcome is Outcome.ON_TIME:
                    break


async def test_a_killed_planner_costs_nothing_and_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        (planner,) = server.children("server.planner")
        async with welcomed(server.port) as client:
            await settled(client)
            planner.kill()
            killed_ns = time.monotonic_ns()
            for frame_id in counting(latest(client) + 1):
                await client.frame(frame_id, PICTURE)
                assert (await client.result(frame_id)).outcome is Outcome.ON_TIME
                rows = rows_so_far(server.out / "plans.csv", PlanRow)
                alive = [one for one in server.children("server.planner") if one.pid != planner.pid]
                if alive and any(row.ts > killed_ns + 500_000_000 and not row.fallback for row in rows):
                    break
            async with welcomed(server.port) as newcomer:
                await newcomer.placed()


async def test_a_killed_log_writer_is_replaced_and_its_files_carried_on(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        frames = server.out / "frame_stats.csv"

        async def served(client: WireClient, frame_id: int) -> None:
            await client.frame(frame_id, PICTURE)
            assert (await client.result(frame_id)).outcome is Outcome.ON_TIME

        def logged() -> list[int]:
            return [row.frame_id for row in rows_so_far(frames, ServerFrameRow)]

        async def on_disk(frame_id: int) -> list[int]:
            await asyncio.to_thread(until, lambda: frame_id in logged())
            return logged()

        def lost() -> re.Match[str] | None:
            return re.search(r"telemetry is written again; (\d+) rows were lost", server.errors())

        async with welcomed(server.port) as client:
            await client.placed()
            for frame_id in range(1, 4):
                await served(client, frame_id)
            assert await on_disk(3) == [1, 2, 3]
            (writer,) = server.children("server.logs")
            writer.suspend()
            for frame_id in range(4, 44):  # 4 ms each: what is known of the first has been sent to it, and is lost
                await served(client, frame_id)
            with frames.open("a") as file:
                file.write("1,5,torn")
            writer.kill()
            await asyncio.to_thread(until, lambda: lost() is not None, server.errors)
            said = lost()
            assert said is not None
            assert int(said[1]) > 0
            await served(client, 44)
            rows = await on_disk(44)
            assert rows[:3] == [1, 2, 3]
            assert 4 not in rows
            assert rows == sorted(set(rows))
            (other,) = server.children("server.logs")
            assert other.pid != writer.pid
            lower = min(19, psutil.Process(server.pid).nice() + 10)
            assert other.nice() == lower, "whoever answers frames comes first"
            assert "the process that writes telemetry died: it was killed by SIGKILL" in server.errors()


async def test_nothing_is_left_when_the_endpoint_is_killed(tmp_path: Path) -> None:
    with running_server(tmp_path, devices=2) as server:
        family = server.children()
        assert len(family) == 4
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(1, PICTURE)
            await client.result(1)
            server.process.send_signal(signal.SIGKILL)
            assert not (await asyncio.to_thread(psutil.wait_procs, family, 60))[1]


async def test_clients_that_vanish_all_the_time_cost_the_others_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path, "--session-ttl-s", "1", "--max-sessions", "1000", devices=2) as server:
        ghosts = itertools.count()

        async def vanish() -> None:
            ghost = next(ghosts)
            async with connected(server.port) as client:
                await client.send(hello(name=f"ghost {ghost}", slo_ms=200.0))
                if ghost % 2:
                    await client.until(lambda message: message.welcome)
                    for frame_id in range(1, 6):
                        await client.frame(frame_id, PICTURE)
                client.cancel()

        async with welcomed(server.port, name="witness") as client:
            await client.placed()
            outcomes = []
            for frame_id in range(1, 61):
                await client.frame(frame_id, PICTURE)
                await asyncio.gather(*(vanish() for _ in range(4)))
                outcomes.append((await client.result(frame_id)).outcome)
            assert set(outcomes) == {Outcome.ON_TIME}
            plans = server.out / "plans.csv"
            await asyncio.to_thread(until, lambda: rows_so_far(plans, PlanRow)[-1].clients == 1, "places are not freed")
        assert not [line for line in server.errors().splitlines() if "Traceback" in line]
