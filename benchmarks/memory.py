"""Memory of the server at full load: 8 pipelined clients for ten minutes, clients coming and going all the while.

Bar: the resident memory of all its processes grows by less than 5 % between the end of the first fifth of the run and
its end (what is allocated once is there by then). Every round ends when its rows are in the log: what writes them comes
after what answers frames, so that on a busy machine rows wait in memory, up to a limit, which is no growth.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import BinaryIO

import psutil
import uvloop

from benchmarks import serving
from benchmarks.throughput import CLIENTS, served_round

BAR_PERCENT = 5.0
FRAMES = 200


def resident_mb(family: list[psutil.Process]) -> float:
    """Resident memory of all processes, shared pages counted once per process."""
    return float(sum(process.memory_info().rss for process in family)) / 2**20


async def written(log: BinaryIO, rows: int) -> None:
    """Wait until so many more rows are in a log."""
    while (rows := rows - log.read().count(b"\n")) > 0:
        await asyncio.sleep(0.02)


async def load(port: int, seconds: float, family: list[psutil.Process], log: BinaryIO) -> list[tuple[float, float]]:
    """(seconds, MB) after every round; each round is a new set of clients."""
    data = serving.picture()
    began, seen = time.perf_counter(), []
    while (passed := time.perf_counter() - began) < seconds:
        seen.append((passed, resident_mb(family)))
        async with serving.streams(port, serving.OURS, CLIENTS) as calls:
            for call in calls:
                await serving.join(call, slo_ms=10_000.0)
            await served_round(calls, data, 1, FRAMES)
        await written(log, CLIENTS * FRAMES)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    serving.describe()
    with serving.instant_server("--session-ttl-s", "1", "--max-sessions", "4096") as server:
        family = [psutil.Process(server.pid), *server.children()]
        with (server.out / "frame_stats.csv").open("rb") as log:
            log.readline()  # the header
            seen = uvloop.run(load(server.port, options.seconds, family, log))
    settled = next(mb for passed, mb in seen if passed >= options.seconds / 5)
    end = seen[-1][1]
    for passed, mb in seen[:: max(1, len(seen) // 10)]:
        print(f"{passed:6.0f} s {mb:8.1f} MB")
    growth = 100.0 * (end - settled) / settled
    print(f"{len(seen) * CLIENTS} clients, {len(seen) * CLIENTS * FRAMES} frames")
    print(f"grew by {growth:+.2f} % from {settled:.1f} MB (bar: {BAR_PERCENT:g} %)")
    return 0 if growth < BAR_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
