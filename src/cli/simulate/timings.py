"""``moonjelly simulate timings``."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.simulate.options import DEFAULT_POLICIES, Full, Kind, Out, Policies, Seed, ZooName, profile_of, sizes
from cli.simulate.results import figure_files, finish, frame_of, make_table, plain
from cli.simulate.sittings import Measurement, collecting, conditions, console
from moonjelly.clock import CpuClock, MonotonicClock
from moonjelly.telemetry import CsvLog
from plots import planning_time
from simulation import timings as timing
from simulation.compare import Size
from simulation.timings import PlanTime, TimingOptions, TimingRow

SIZES = sizes(devices=(2, 4, 8, 16, 64), clients_per_device=(4, 6, 8, 10, 16))
FIGURE = "planning_time"
TABLE = "timings.csv"
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

    --full takes 100 instances everywhere and lets no policy sit out. What was interrupted goes on by the same command.
    """
    options = TimingOptions(
        sizes=SIZES,
        policies=tuple(policy),
        instances=100 if full else instances,
        seed=seed,
        budget_s=float("inf") if full else budget,
        profile=profile_of(zoo, kind),
    )
    with collecting(_measurement(options, out)) as found:
        left_out: list[str] = []

        def passed_over(name: str, size: Size, count: int) -> None:
            if count == options.instances:
                left_out.append(f"{name} at {size}")
            found.pass_over(count)

        with found.interruptible():
            for row in timing.run(options, (CpuClock(), MonotonicClock()), passed_over, found.rows):
                found.begin(f"{row.policy} at {row.devices}/{row.clients}")
                found.add((row,))
        found.explain()
        lines = timing.table(found.rows, options.instances)
        with closing(CsvLog(out / TABLE, TimingRow)) as log:
            log.write_all(lines)
        console.print(_table(lines))
        if left_out:
            console.print(f"left out, the policy had used up its {options.budget_s:g} s before: {', '.join(left_out)}")
        content = {"table": [plain(line) for line in lines], "left_out": left_out}
        finish(out, found, content, planning_time.draw(frame_of(lines)), FIGURE)


def _measurement(options: TimingOptions, out: Path) -> Measurement[PlanTime]:
    return Measurement(
        out=out,
        table="instances.csv",
        row_type=PlanTime,
        noun="plans",
        total=len(options.sizes) * len(options.policies) * options.instances,
        of=lambda row: (row.devices, row.clients, row.policy, row.instance),
        rows_each=1,
        conditions=conditions("timings", options),
        others=(TABLE, *figure_files(FIGURE)),
    )


def _table(rows: Iterable[TimingRow]) -> Table:
    shown = make_table("planning time, ms", _COLUMNS)
    for row in rows:
        cpu = (row.cpu_ms_min, row.cpu_ms_mean, row.cpu_ms_median, row.cpu_ms_p99, row.wall_ms_median)
        size = f"{row.devices}/{row.clients}"
        shown.add_row(size, row.policy, *(f"{value:.1f}" for value in cpu), str(row.instances))
    return shown
