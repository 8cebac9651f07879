"""What an idle server costs: CPU time of all its processes, without clients and with connected ones that say nothing.

Bar: less than 2 % of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import psutil
import uvloop

from benchmarks import serving

BAR_PERCENT = 2.0
CLIENTS = 8


def cpu_seconds(family: list[psutil.Process]) -> float:
    """User and system time so far."""
    return sum(sum(process.cpu_times()[:2]) for process in family)


async def share(family: list[psutil.Process], seconds: float) -> float:
    """Percent of a core over ``seconds``."""
    before = cpu_seconds(family)
    await asyncio.sleep(seconds)
    return 100.0 * (cpu_seconds(family) - before) / seconds


async def measure(port: int, family: list[psutil.Process], seconds: float) -> tuple[float, float]:
    """Alone, and with silent clients."""
    alone = await share(family, seconds)
    async with serving.streams(port, serving.OURS, CLIENTS) as calls:
        for call in calls:
            await serving.join(call)
        return alone, await share(family, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="per state")
    options = parser.parse_args()
    serving.describe()
    with serving.instant_server("--devices", "2") as server:
        family = [psutil.Process(server.pid), *server.children()]
        alone, silent = uvloop.run(measure(server.port, family, options.seconds))
    print(
        f"{len(family)} processes; without clients {alone:.2f} % of a core, with {CLIENTS} silent ones {silent:.2f} %"
    )
    print(f"idle: {alone:.2f} % of a core (bar: {BAR_PERCENT:g} %)")
    return 0 if alone < BAR_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
