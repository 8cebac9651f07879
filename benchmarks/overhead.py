"""What the server adds to a round trip: one closed-loop client, 70 KB frames, a simulated device of 0 ms.

Bars: round trip p50 at most 2 x and p99 at most 3 x a bare grpc.aio stream echo of the same bytes in the same run.
The two are measured in turns, so that both see the same neighbours; the figure is the median of the rounds' ratios.
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
    """Round trips with the server, frame to result, us. Like the echo's they end when the bytes are there."""
    taken = []
    for frame_id in range(first, first + count):
        message = serving.frame(frame_id, data)
        began = serving.now_us()
        await call.write(message)
        answered = 0
        while not answered:
            answer = await call.read()
            ended = serving.now_us()
            answered = serving.results_in(answer)
        taken.append(ended - began)
    return taken


async def measure(echo_port: int, port: int, rounds: int, count: int) -> list[tuple[list[float], list[float]]]:
    """Per round, round trips of the echo and of the server."""
    data = serving.picture()
    async with serving.stream(echo_port, serving.ECHO) as bare, serving.stream(port, serving.OURS) as ours:
        await serving.join(ours)
        await echoes(bare, serving.frame(1, data), WARM_UP)
        await frames(ours, data, 1, WARM_UP)
        return [
            (
                await echoes(bare, serving.frame(1, data), count),
                await frames(ours, data, 1 + WARM_UP + turn * count, count),
            )
            for turn in range(rounds)
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frames", type=int, default=400, help="per round")
    options = parser.parse_args()
    serving.describe()
    with serving.echo_server() as echo_port, serving.instant_server() as server:
        turns = uvloop.run(measure(echo_port, server.port, options.rounds, options.frames))
    held = []
    for percentile, bar in ((50, P50_BAR), (99, P99_BAR)):
        floor, served = (np.array([np.percentile(turn[side], percentile) for turn in turns]) for side in (0, 1))
        ratio = float(np.median(served / floor))
        held.append(ratio <= bar)
        print(
            f"p{percentile}: echo {np.median(floor):.0f} us, server {np.median(served):.0f} us (medians of "
            f"{len(turns)} rounds); best round {np.min(served / floor):.2f} x, median {ratio:.2f} x (bar: {bar:g} x)"
        )
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
