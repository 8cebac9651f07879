"""``moonjelly simulate timings``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.simulate.options import DEFAULT_POLICIES, Full, Kind, Out, Policies, Seed, ZooName, profile_of, sizes
from cli.simulate.results import collecting, console, figure_files, finish, frame_of, keep_earlier, make_table, plain
from moonjelly.clock import CpuClock, MonotonicClock
from plots import planning_time
from simulation import timings as timing
from simulation.compare import Size
from simulation.timings import TimingOptions, TimingRow

SIZES = sizes(devices=(2, 4, 8, 16, 64), clients_per_device=(4, 6, 8, 10, 16))
FIGURE = "planning_time"
_COLUMNS = ("devices/clients", "policy", "min", "mean", "median", "p99", "wall median", "instances")


def timings(
    policy: Policies = DEFAULT_POLICIES,
    instances: Annotated[int, typer.Option(help="per size and policy")] = 10,
    budget: Annotated[float, typer.Option(help="CPU seconds per size and policy before a policy sits out")] = 10.0,
    full: Full = False,
    zoo: ZooName = "formula",
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/timings"),
) -> None:
    """Planning time: 2 to 64 devices, 4 to 16 clients per device; CPU and wall time.

    --full takes 100 instances everywhere and lets no policy sit out.
    """
    options = TimingOptions(
        sizes=SIZES,
        policies=tuple(policy),
        instances=100 if full else instances,
        seed=seed,
        budget_s=float("inf") if full else budget,
        profile=profile_of(zoo, kind),
    )
    keep_earlier(out, "timings.csv", *figure_files(FIGURE))
    left_out: list[str] = []
    total = len(options.sizes) * len(options.policies)
    with collecting(out / "timings.csv", TimingRow, "sizes and policies", total) as found:

        def passed_over(name: str, size: Size) -> None:
            left_out.append(f"{name} at {size}")
            found.add(())

        for row in timing.run(options, CpuClock(), MonotonicClock(), passed_over):
            found.begin(f"{row.policy} at {row.devices}/{row.clients}")
            found.add((row,))
    found.explain()
    console.print(_table(found.rows))
    if left_out:
        console.print(f"left out, the policy had used up its {options.budget_s:g} s before: {', '.join(left_out)}")
    content = {"table": [plain(row) for row in found.rows], "left_out": left_out}
    finish(out, content, planning_time.draw(frame_of(found.rows)), FIGURE, found.stopped)


def _table(rows: Iterable[TimingRow]) -> Table:
    shown = make_table("planning time, ms", _COLUMNS)
    for row in rows:
        cpu = (row.cpu_ms_min, row.cpu_ms_mean, row.cpu_ms_median, row.cpu_ms_p99, row.wall_ms_median)
        size = f"{row.devices}/{row.clients}"
        shown.add_row(size, row.policy, *(f"{value:.1f}" for value in cpu), str(row.instances))
    return shown
