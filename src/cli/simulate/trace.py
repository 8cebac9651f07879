"""``moonjelly simulate trace``."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.machine import machine, versions
from cli.simulate.options import Kind, Out, Seed, ZooName, profile_of
from cli.simulate.results import figure_files, finish, frame_of, make_table, plain
from cli.simulate.sittings import Measurement, collecting, conditions, console
from moonjelly import dispatching
from moonjelly.clock import CpuClock
from moonjelly.errors import ConfigError
from moonjelly.planning import DEFAULT_POLICY
from moonjelly.reference import reference_profile
from moonjelly.summary import half_width_95
from plots import accuracy_misses
from simulation import study, systems
from simulation.study import RunFigures, StudyOptions
from simulation.workload import Slowdown, WorkloadOptions

DEFAULT_TRACES = ["lte-city"]
DEFAULT_SYSTEMS = ["multiset+edf-adaptive", "sa-dp+jellyfish-fifo+jellyfish"]
NONE: list[str] = []

Traces = Annotated[list[str], typer.Option(help="uplink trace: name or file; repeat for several")]
Systems = Annotated[
    list[str],
    typer.Option(help=f"policy[+dispatcher[+network]]; repeat for several (without: {', '.join(DEFAULT_SYSTEMS)})"),
]
CrossedPolicies = Annotated[
    list[str], typer.Option(help="cross these policies with every --dispatcher, beside any --system")
]
CrossedDispatchers = Annotated[
    list[str], typer.Option(help="cross these dispatchers with every --policy, beside any --system")
]
Slow = Annotated[
    list[str], typer.Option(help="DEVICE@BEGIN-END=SPEED, e.g. 0@20-30=0.5: half as fast from second 20 to 30")
]

FIGURE = "accuracy_misses"
TABLE = "runs.csv"
_COLUMNS = (
    "trace", "system", "missed %", "outside outages %", "effective accuracy", "as sized", "p50/p99 ms", "switches/min",
)  # fmt: skip


def trace(
    trace: Traces = DEFAULT_TRACES,
    system: Systems = NONE,
    policy: CrossedPolicies = NONE,
    dispatcher: CrossedDispatchers = NONE,
    clients: Annotated[int, typer.Option(help="at a time")] = 8,
    fps: Annotated[str, typer.Option(help="nominal rates, dealt out in turn: 15 or 12,15,24,29.97")] = "15",
    slo: Annotated[str, typer.Option(help="deadlines in ms, dealt out in turn")] = "100",
    devices: Annotated[int, typer.Option(help="devices")] = 2,
    speed: Annotated[str, typer.Option(help="speeds of the devices, dealt out in turn")] = "1",
    seconds: Annotated[float, typer.Option(help="counted length of a run")] = 60.0,
    warmup: Annotated[float, typer.Option(help="before it, s")] = 5.0,
    frame_scale: Annotated[float, typer.Option(help="encoded sizes over Jellyfish's worst-case table")] = 1.0,
    churn: Annotated[float, typer.Option(help="clients per minute that leave and are replaced")] = 0.0,
    slow: Slow = NONE,
    seeds: Annotated[int, typer.Option(help="repetitions, with seeds SEED, SEED + 1, ...")] = 3,
    zoo: ZooName = "yolov4",
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/trace"),
) -> None:
    """A discrete-event run of a whole workload per trace, system and seed.

    Every run's summary.json and logs are under OUT/<trace>/<system>/seed-<n>, all figures in OUT/runs.csv. What was
    interrupted goes on by the same command.
    """
    workload = WorkloadOptions(
        clients=clients,
        fps=_numbers("fps", fps),
        slo_ms=_numbers("slo", slo),
        devices=devices,
        speeds=_numbers("speed", speed),
        seconds=seconds,
        warmup_s=warmup,
        frame_scale=frame_scale,
        churn_per_min=churn,
        slowdowns=tuple(_slowdown(text) for text in slow),
    )
    named = [*system, *_crossed(policy, dispatcher)] or DEFAULT_SYSTEMS
    options = StudyOptions(
        traces=tuple(trace),
        systems=tuple(systems.parse(text) for text in named),
        seeds=range(seed, seed + seeds),
        workload=workload,
        profile=profile_of(zoo, kind) or reference_profile(max_batch=12),
    )
    _study(options, out)


def _study(options: StudyOptions, out: Path) -> None:
    provenance = (versions(), machine())
    with collecting(_measurement(options, out)) as found:
        with found.interruptible():
            for run in options.runs():
                if run.key not in found.there:
                    found.begin(f"{Path(run.trace).name} {run.system.name} seed {run.seed}")
                    found.add((study.simulate(options, run, CpuClock(), out, provenance),))
        found.explain()
        console.print(_table(found.rows))
        slowest = min(row.real_time_factor for row in found.rows)
        console.print(f"simulated at {slowest:.0f} x real time or faster, planning included")
        content = {"runs": [plain(row) for row in found.rows]}
        finish(out, found, content, accuracy_misses.draw(frame_of(found.rows)), FIGURE)


def _measurement(options: StudyOptions, out: Path) -> Measurement[RunFigures]:
    return Measurement(
        out=out,
        table=TABLE,
        row_type=RunFigures,
        noun="runs",
        total=len(options.runs()),
        of=lambda row: (row.trace, row.system, row.seed),
        rows_each=1,
        conditions=conditions("trace", options, links=options.links()),
        others=(*figure_files(FIGURE), *_folders_of(out / TABLE)),
    )


def _folders_of(runs: Path) -> list[str]:
    """What an earlier study has put beside its ``runs.csv``."""
    if not runs.is_file():
        return []
    with runs.open(newline="", encoding="utf-8", errors="replace") as file:
        return sorted({Path(row["trace"]).name for row in csv.DictReader(file) if row.get("trace")})


def _crossed(policies: Sequence[str], dispatchers: Sequence[str]) -> list[str]:
    """Every policy with every dispatcher; the default for a side that is not named, nothing if neither is."""
    if not policies and not dispatchers:
        return []
    return [f"{one}+{other}" for one in policies or [DEFAULT_POLICY] for other in dispatchers or [dispatching.DEFAULT]]


def _table(rows: Sequence[RunFigures]) -> Table:
    shown = make_table("means over seeds ± 95 % confidence", _COLUMNS)
    for name, system in dict.fromkeys((row.trace, row.system) for row in rows):
        mine = [row for row in rows if (row.trace, row.system) == (name, system)]
        shown.add_row(
            Path(name).name,
            system,
            _mean([100.0 * row.miss_rate for row in mine], 2),
            _mean([100.0 * row.miss_rate_outside_outages for row in mine], 2),
            _mean([row.effective_accuracy for row in mine], 4),
            _mean([row.accuracy_as_sized for row in mine], 4),
            "/".join(f"{sum(each) / len(each):.0f}" for each in _latencies(mine)) or "-",
            _mean([60.0 * row.switches / row.seconds for row in mine], 0),
        )
    return shown


def _latencies(rows: Sequence[RunFigures]) -> list[list[float]]:
    answered = [(row.p50_ms, row.p99_ms) for row in rows if row.p50_ms is not None and row.p99_ms is not None]
    return [list(each) for each in zip(*answered, strict=True)]


def _mean(values: Sequence[float], digits: int) -> str:
    half = half_width_95(values)
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if half is None else f"{mean} ± {half:.{digits}f}"


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"'{name}' = '{text}'; numbers separated by commas are expected") from None


def _slowdown(text: str) -> Slowdown:
    found = re.fullmatch(r"(\d+)@([\d.]+)-([\d.]+)=([\d.]+)", text)
    if found is None:
        raise ConfigError(f"'slow' = '{text}'; DEVICE@BEGIN-END=SPEED is expected, e.g. 0@20-30=0.5")
    begin_s, end_s, speed = (float(part) for part in found.groups()[1:])
    return Slowdown(int(found[1]), begin_s, end_s, speed)
