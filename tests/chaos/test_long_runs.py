"""The long tier: hostile bytes for a minute, and ten minutes at full load without growing.

``MOONJELLY_FUZZ_S`` and ``MOONJELLY_SOAK_S`` shorten them, ``MOONJELLY_FUZZ_SEED`` repeats or varies the bytes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from moonjelly.rpc import client_wire, messages
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant
from tests.support.serving import STREAM, WireClient, environment, frame_of, hello, jpeg, running_server, welcomed

FUZZ_S = float(os.environ.get("MOONJELLY_FUZZ_S", "60"))
FUZZ_SEED = int(os.environ.get("MOONJELLY_FUZZ_SEED", "0"))
SOAK_S = float(os.environ.get("MOONJELLY_SOAK_S", "600"))
PICTURE = jpeg(64)
ENDED = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""What a write on a stream raises that the server has ended."""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, cut out, put in or repeated."""
    made = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(0, len(made) + 1))
        match rng.integers(4):
            case 0 if place < len(made):
                made[place] = int(rng.integers(256))
            case 1:
                del made[place : place + int(rng.integers(1, 40))]
            case 2:
                made[place:place] = rng.bytes(int(rng.integers(1, 40)))
            case _:
                made[place:place] = made[place : place + int(rng.integers(1, 200))]
    return bytes(made)


def hostile(frame_id: int, rng: np.random.Generator) -> bytes:
    """Noise, or a message that was once good, or a good frame around a damaged picture."""
    ping = messages.Ping(sent_ns=ClientInstant(time.monotonic_ns()))
    match rng.integers(6):
        case 0:
            return rng.bytes(int(rng.integers(0, 2000)))
        case 1:
            return damaged(client_wire.write(hello(name="mallory")), rng)
        case 2:
            return damaged(client_wire.write(ping), rng)
        case 3:
            return damaged(client_wire.write(messages.Bye()), rng)
        case 4:
            return damaged(client_wire.write(frame_of(frame_id, PICTURE)), rng)
        case _:
            return client_wire.write(frame_of(frame_id, damaged(PICTURE, rng)))


async def attack(channel: grpc.aio.Channel, rng: np.random.Generator) -> int:
    """One stream of up to 20 hostile messages, read to its end or to the answer of a last ping; how many were sent."""
    sent = 0
    call = channel.stream_stream(STREAM)()
    client = WireClient(call)
    try:
        try:
            if rng.random() < 0.7:
                await client.send(hello(name="mallory", slo_ms=500.0))
            for number in range(1, int(rng.integers(2, 22))):
                await client.send_bytes(hostile(number, rng))
                sent += 1
            await client.send(messages.Ping(sent_ns=ClientInstant(1)))
        except ENDED:
            return sent
        while (message := await client.read()) is not None and not any(
            pong.sent_client_ns == 1 for pong in message.pongs
        ):
            pass
    finally:
        call.cancel()
    return sent


async def attacker(port: int, rng: np.random.Generator, ends_s: float) -> int:
    """Attacks, one after the other, over one connection; how many messages were sent."""
    sent = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.use_local_subchannel_pool", 1),)) as one:
        while time.monotonic() < ends_s:
            sent += await attack(one, rng)
    return sent


async def stream(client: WireClient, over: asyncio.Event) -> list[tuple[Outcome, str]]:
    """Outcomes and reasons of frames sent one after the other until ``over``."""
    outcomes: list[tuple[Outcome, str]] = []
    while not over.is_set():
        frame_id = len(outcomes) + 1
        await client.frame(frame_id, PICTURE)
        result = await client.result(frame_id)
        outcomes.append((result.outcome, result.reason))
        client.received.clear()
    return outcomes


@pytest.mark.full
@pytest.mark.timeout(FUZZ_S + 120)
@pytest.mark.asyncio(loop_scope="session")
async def test_hostile_bytes_cost_a_good_client_nothing(tmp_path: Path) -> None:
    # Sessions end with their streams: hundreds that wait to be resumed would hold the capacity that is measured here.
    with running_server(tmp_path, "--session-ttl-s", "0.05", "--max-sessions", "16", devices=2) as server:
        family = {child.pid for child in server.children()}
        async with welcomed(server.port, slo_ms=1000.0, name="witness") as client:
            await client.placed()
            over = asyncio.Event()
            good = asyncio.ensure_future(stream(client, over))
            ends_s = time.monotonic() + FUZZ_S
            rngs = np.random.default_rng(FUZZ_SEED).spawn(4)
            sent = sum(await asyncio.gather(*(attacker(server.port, rng, ends_s) for rng in rngs)))
            over.set()
            outcomes = await good
        print(f"{sent} hostile messages, {len(outcomes)} good frames")
        assert sent > 0
        assert set(outcomes) == {(Outcome.ON_TIME, "")}
        assert {child.pid for child in server.children()} == family, "a process of the server died"
        assert not [line for line in server.errors().splitlines() if "Traceback" in line]


@pytest.mark.full
@pytest.mark.timeout(SOAK_S + 300)
def test_memory_does_not_grow_at_full_load(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--seconds", str(SOAK_S)],
        cwd=root, env=environment(), capture_output=True, text=True, check=False, timeout=SOAK_S + 240,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
