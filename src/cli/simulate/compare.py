"""``moonjelly simulate compare``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.simulate.options import DEFAULT_POLICIES, Full, Kind, Out, Policies, Seed, ZooName, profile_of, sizes
from cli.simulate.results import figure_files, finish, frame_of, make_table, plain
from cli.simulate.sittings import Measurement, collecting, conditions, console
from moonjelly.clock import CpuClock
from plots import policy_optimum
from simulation import compare as comparing
from simulation.compare import ComparisonLine, ComparisonOptions, ComparisonRow, Size

SIZES = sizes(devices=(2, 4), clients_per_device=(4, 6, 8))
FIGURE = "policy_optimum"
_COLUMNS = (
    "devices/clients", "policy", "min", "mean", "max", "better/equal/worse", "mean to bound", "effectiveness",
    "CPU ms", "proven",
)  # fmt: skip


def compare(
    policy: Policies = DEFAULT_POLICIES,
    instances: Annotated[int, typer.Option(help="per size")] = 10,
    full: Full = False,
    solver: Annotated[str, typer.Option(help="of the optimum: auto, cplex or highs")] = "auto",
    time_limit: Annotated[float, typer.Option(help="of the solver, s per instance")] = 5.0,
    zoo: ZooName = "formula",
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/compare"),
) -> None:
    """Policies against the optimum: 2 and 4 devices, 4, 6 and 8 clients per device, random instances.

    --full takes 100 instances per size and a minute per solve, as the paper does. What was interrupted goes on by the
    same command.
    """
    options = ComparisonOptions(
        sizes=SIZES,
        policies=tuple(policy),
        instances=100 if full else instances,
        seed=seed,
        solver=solver,
        time_limit_s=60.0 if full else time_limit,
        profile=profile_of(zoo, kind),
    )
    with collecting(_measurement(options, out)) as found:
        with found.interruptible():
            for rows in comparing.run(options, CpuClock(), found.there):
                found.begin(f"{rows[0].devices}/{rows[0].clients}")
                found.add(rows)
        found.explain()
        lines = comparing.table(found.rows)
        console.print(_table(lines))
        console.print(_references(found.rows, options))
        content = {"table": [plain(line) for line in lines]}
        finish(out, found, content, policy_optimum.draw(frame_of(found.rows)), FIGURE)


def _measurement(options: ComparisonOptions, out: Path) -> Measurement[ComparisonRow]:
    return Measurement(
        out=out,
        table="compare.csv",
        row_type=ComparisonRow,
        noun="instances",
        total=len(options.sizes) * options.instances,
        of=lambda row: (Size(row.devices, row.clients), row.instance),
        rows_each=len(options.policies),
        conditions=conditions("compare", options),
        others=figure_files(FIGURE),
    )


def _table(lines: Iterable[ComparisonLine]) -> Table:
    shown = make_table("accuracy over the optimum's", _COLUMNS)
    for line in lines:
        shown.add_row(
            str(line.size),
            line.policy,
            *(f"{value:.4f}" for value in (line.ratio_min, line.ratio_mean, line.ratio_max)),
            f"{line.better}/{line.equal}/{line.worse}",
            f"{line.bound_mean:.4f}",
            f"{line.effectiveness:.3f}",
            f"{line.cpu_ms:.1f}",
            f"{line.proven}/{line.instances}",
        )
    return shown


def _references(rows: list[ComparisonRow], options: ComparisonOptions) -> str:
    solvers = ", ".join(sorted({row.solver for row in rows}))
    policies = len(options.policies)
    return (
        f"optimum by {solvers}; proven optimal in {sum(row.proven for row in rows) // policies} of "
        f"{len(rows) // policies} instances; where it is not, a ratio above 1 means that the solver or the proof "
        f"stopped at its limit of {options.time_limit_s:g} s"
    )
