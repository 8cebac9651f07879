"""Frames per second with 8 pipelined clients, 70 KB frames, a simulated device of 0 ms.

Bar: at least half of what a bare grpc.aio stream echo of the same bytes carries in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from benchmarks import serving

BAR = 0.5
CLIENTS, WINDOW = 8, 8


async def pipelined(count: int, send: Callable[[int], Awaitable[None]], receive: Callable[[], Awaitable[int]]) -> None:
    """Send ``count`` messages with at most ``WINDOW`` of them unanswered."""
    room = asyncio.Semaphore(WINDOW)

    async def sender() -> None:
        for number in range(count):
            await room.acquire()
            await send(number)

    sending = asyncio.ensure_future(sender())
    answered = 0
    while answered < count:
        new = await receive()
        answered += new
        for _ in range(new):
            room.release()
    await sending


async def echo_round(calls: list[Any], data: bytes, count: int) -> float:
    """Messages per second over all streams of the echo."""

    async def one(call: Any) -> None:
        async def receive() -> int:
            await call.read()
            return 1

        await pipelined(count, lambda _: call.write(data), receive)

    began = time.perf_counter()
    await asyncio.gather(*(one(call) for call in calls))
    return len(calls) * count / (time.perf_counter() - began)


async def served_round(calls: list[Any], data: bytes, first: int, count: int) -> float:
    """Frames per second over all clients of the server."""

    async def one(call: Any) -> None:
        await pipelined(
            count, lambda number: call.write(serving.frame(first + number, data)), lambda: serving.results(call)
        )

    began = time.perf_counter()
    await asyncio.gather(*(one(call) for call in calls))
    return len(calls) * count / (time.perf_counter() - began)


async def measure(echo_port: int, port: int, rounds: int, count: int) -> tuple[list[float], list[float]]:
    """Rates of the echo and of the server, in turns."""
    data = serving.picture()
    async with (
        serving.streams(echo_port, serving.ECHO, CLIENTS) as bare,
        serving.streams(port, serving.OURS, CLIENTS) as ours,
    ):
        for call in ours:
            await serving.join(call, slo_ms=10_000.0)
        echoed = serving.frame(1, data)
        await echo_round(bare, echoed, count // 4)
        await served_round(ours, data, 1, count)
        floor, rates = [], []
        for turn in range(1, rounds + 1):
            floor.append(await echo_round(bare, echoed, count))
            rates.append(await served_round(ours, data, 1 + turn * count, count))
    return floor, rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=500, help="per client and round")
    options = parser.parse_args()
    serving.describe()
    with serving.echo_server() as echo_port, serving.instant_server() as server:
        floor, rates = uvloop.run(measure(echo_port, server.port, options.rounds, options.frames))
    ratios = sorted(rate / bare for rate, bare in zip(rates, floor, strict=True))
    print("echo  ", " ".join(f"{rate:7.0f}" for rate in floor), "messages/s")
    print("server", " ".join(f"{rate:7.0f}" for rate in rates), "frames/s")
    middle = ratios[len(ratios) // 2]
    print(f"{middle:.2f} x the echo (median of {len(ratios)} rounds; bar: {BAR:g} x)")
    return 0 if middle >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
