"""What the server adds to a round trip: one closed-loop client, 70 KB frames, a simulated device of 0 ms.

Bars: round trip p50 at most 2 x and p99 at most 3 x a bare grpc.aio stream echo of the same bytes in the same run.
The two are measured in turns, so that both see the same neighbours.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import uvloop

from benchmarks import serving

P50_BAR, P99_BAR = 2.0, 3.0
WARM_UP = 200


async def echoes(call: Any, data: bytes, count: int) -> list[float]:
    """Round trips with the bare echo, us."""
    taken = []
    for _ in range(count):
        began = serving.now_us()
        await call.write(data)
        await call.read()
        taken.append(serving.now_us() - began)
    return taken


async def frames(call: Any, data: bytes, first: int, count: int) -> list[float]:
    """Round trips with the server, frame to result, us."""
    taken = []
    for frame_id in range(first, first + count):
        message = serving.frame(frame_id, data)
        began = serving.now_us()
        await call.write(message)
        while not await serving.results(call):
            pass
        taken.append(serving.now_us() - began)
    return taken


async def measure(echo_port: int, port: int, rounds: int, count: int) -> tuple[list[float], list[float]]:
    """Round trips of the echo and of the server, in turns."""
    data = serving.picture()
    async with serving.stream(echo_port, serving.ECHO) as bare, serving.stream(port, serving.OURS) as ours:
        await serving.join(ours)
        await echoes(bare, serving.frame(1, data), WARM_UP)
        await frames(ours, data, 1, WARM_UP)
        floor: list[float] = []
        served: list[float] = []
        for turn in range(rounds):
            floor += await echoes(bare, serving.frame(1, data), count)
            served += await frames(ours, data, 1 + WARM_UP + turn * count, count)
    return floor, served


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--frames", type=int, default=500, help="per round")
    options = parser.parse_args()
    serving.describe()
    with serving.echo_server() as echo_port, serving.instant_server() as server:
        floor, served = uvloop.run(measure(echo_port, server.port, options.rounds, options.frames))
    ratios = []
    for percentile, bar in ((50, P50_BAR), (99, P99_BAR)):
        bare, ours = np.percentile(floor, percentile), np.percentile(served, percentile)
        ratios.append(ours / bare <= bar)
        print(f"p{percentile}: echo {bare:.0f} us, server {ours:.0f} us: {ours / bare:.2f} x (bar: {bar:g} x)")
    return 0 if all(ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
