"""Planning against the optimum, its time, whole workloads, and recorded runs replayed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.machine import machine, versions
from cli.terminal import make_console
from moonjelly import dispatching
from moonjelly.clock import CpuClock, MonotonicClock
from moonjelly.errors import ConfigError
from moonjelly.planning import DEFAULT_POLICY
from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.reference import reference_profile
from moonjelly.repository import load_zoo
from moonjelly.summary import half_width_95
from moonjelly.telemetry import SCHEMA_VERSION, CsvLog
from moonjelly.types import DEFAULT_GROUP
from network_shaping.catalogue import resolve
from plots import accuracy_misses, planning_time, policy_optimum, style
from simulation import compare as comparing
from simulation import replay as replaying
from simulation import study, systems
from simulation import timings as timing
from simulation.compare import ComparisonOptions, ComparisonRow, Size
from simulation.study import RunFigures
from simulation.timings import TimingOptions, TimingRow
from simulation.workload import Slowdown, WorkloadOptions

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
console = make_console()

Out = Annotated[Path, typer.Option(help="folder for CSV files, figures and summary.json")]
Seed = Annotated[int, typer.Option(min=0, help="of everything that is drawn")]
ZooName = Annotated[str, typer.Option(help="zoo whose profile the devices have; 'formula': Jellyfish's formula")]
Kind = Annotated[str, typer.Option(help="device kind of the zoo's profile; its first when not given")]
Policies = Annotated[list[str], typer.Option("--policy", help="planning policy; repeat for several")]
Full = Annotated[bool, typer.Option("--full", help="the paper's full size")]

DEFAULT_POLICIES = ["multiset", "sa-dp"]
DEFAULT_TRACES = ["lte-city"]
DEFAULT_SYSTEMS = ["multiset+edf-adaptive", "sa-dp+jellyfish-fifo+jellyfish"]
NONE: list[str] = []
SERVED = ["synthetic"]

COMPARE_SIZES = tuple(Size(devices, devices * each) for devices in (2, 4) for each in (4, 6, 8))
TIMING_SIZES = tuple(Size(devices, devices * each) for devices in (2, 4, 8, 16, 64) for each in (4, 6, 8, 10, 16))


@app.command()
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

    --full takes 100 instances per size and a minute per solve, as the paper does.
    """
    options = ComparisonOptions(
        sizes=COMPARE_SIZES,
        policies=tuple(policy),
        instances=100 if full else instances,
        seed=seed,
        solver=solver,
        time_limit_s=60.0 if full else time_limit,
        profile=_profile(zoo, kind),
    )
    rows: list[ComparisonRow] = []
    with closing(CsvLog(out / "compare.csv", ComparisonRow)) as log, _progress() as progress:
        task = progress.add_task("instances", total=len(options.sizes) * options.instances)
        for batch in comparing.run(options, CpuClock()):
            for row in batch:
                log.write(row)
            rows.extend(batch)
            progress.update(task, advance=1, description=f"{batch[0].devices}/{batch[0].clients}")
    lines = comparing.table(rows)
    shown = _table("accuracy over the optimum's", _COMPARE_COLUMNS)
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
    console.print(shown)
    solvers = ", ".join(sorted({row.solver for row in rows}))
    console.print(
        f"optimum by {solvers}; proven optimal in {sum(row.proven for row in rows) // len(options.policies)} of "
        f"{len(rows) // len(options.policies)} instances; where it is not, a ratio above 1 means that the solver "
        f"stopped at its limit of {options.time_limit_s:g} s"
    )
    _finish(out, {"table": [_plain(line) for line in lines]}, policy_optimum.draw(_frame(rows)), "policy_optimum")


@app.command()
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
        sizes=TIMING_SIZES,
        policies=tuple(policy),
        instances=100 if full else instances,
        seed=seed,
        budget_s=float("inf") if full else budget,
        profile=_profile(zoo, kind),
    )
    rows: list[TimingRow] = []
    left_out: list[str] = []
    with closing(CsvLog(out / "timings.csv", TimingRow)) as log, _progress() as progress:
        task = progress.add_task("sizes", total=len(options.sizes) * len(options.policies))

        def passed_over(name: str, size: Size) -> None:
            left_out.append(f"{name} at {size}")
            progress.advance(task)

        for row in timing.run(options, CpuClock(), MonotonicClock(), passed_over):
            log.write(row)
            rows.append(row)
            progress.update(task, advance=1, description=f"{row.policy} at {row.devices}/{row.clients}")
    shown = _table("planning time, ms", _TIMING_COLUMNS)
    for row in rows:
        cpu = (row.cpu_ms_min, row.cpu_ms_mean, row.cpu_ms_median, row.cpu_ms_p99, row.wall_ms_median)
        size = f"{row.devices}/{row.clients}"
        shown.add_row(size, row.policy, *(f"{value:.1f}" for value in cpu), str(row.instances))
    console.print(shown)
    if left_out:
        console.print(f"left out, the policy had used up its {options.budget_s:g} s before: {', '.join(left_out)}")
    content = {"table": [_plain(row) for row in rows], "left_out": left_out}
    _finish(out, content, planning_time.draw(_frame(rows)), "planning_time")


@app.command()
def trace(
    trace: Annotated[list[str], typer.Option(help="uplink trace: name or file; repeat for several")] = DEFAULT_TRACES,
    system: Annotated[
        list[str],
        typer.Option(help=f"policy[+dispatcher[+network]]; repeat for several (without: {', '.join(DEFAULT_SYSTEMS)})"),
    ] = NONE,
    policy: Annotated[
        list[str], typer.Option(help="cross these policies with every --dispatcher, beside any --system")
    ] = NONE,
    dispatcher: Annotated[
        list[str], typer.Option(help="cross these dispatchers with every --policy, beside any --system")
    ] = NONE,
    clients: Annotated[int, typer.Option(help="at a time")] = 8,
    fps: Annotated[str, typer.Option(help="nominal rates, dealt out in turn: 15 or 12,15,24,29.97")] = "15",
    slo: Annotated[str, typer.Option(help="deadlines in ms, dealt out in turn")] = "100",
    devices: Annotated[int, typer.Option(help="devices")] = 2,
    speed: Annotated[str, typer.Option(help="speeds of the devices, dealt out in turn")] = "1",
    seconds: Annotated[float, typer.Option(help="counted length of a run")] = 60.0,
    warmup: Annotated[float, typer.Option(help="before it, s")] = 5.0,
    frame_scale: Annotated[float, typer.Option(help="encoded sizes over Jellyfish's worst-case table")] = 1.0,
    churn: Annotated[float, typer.Option(help="clients per minute that leave and are replaced")] = 0.0,
    slow: Annotated[
        list[str], typer.Option(help="DEVICE@BEGIN-END=SPEED, e.g. 0@20-30=0.5: half as fast from second 20 to 30")
    ] = NONE,
    seeds: Annotated[int, typer.Option(help="repetitions, with seeds SEED, SEED + 1, ...")] = 3,
    zoo: ZooName = "yolov4",
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/trace"),
) -> None:
    """A discrete-event run of a whole workload per trace, system and seed.

    Every run's summary.json and logs are under OUT/<trace>/<system>/seed-<n>, all figures in OUT/runs.csv.
    """
    crossed = [f"{one}+{other}" for one in policy or [DEFAULT_POLICY] for other in dispatcher or [dispatching.DEFAULT]]
    named = [*system, *(crossed if policy or dispatcher else ())]
    chosen = [systems.parse(text) for text in named or DEFAULT_SYSTEMS]
    options = WorkloadOptions(
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
    for name in trace:
        resolve(name, seed=seed)  # a wrong name is said before anything is run
    profile = _profile(zoo, kind) or reference_profile(max_batch=12)
    provenance = (versions(), machine())
    runs = list(study.combinations(trace, chosen, range(seed, seed + seeds)))
    rows: list[RunFigures] = []
    with closing(CsvLog(out / "runs.csv", RunFigures)) as log, _progress() as progress:
        task = progress.add_task("runs", total=len(runs))
        for name, one, number in runs:
            progress.update(task, description=f"{Path(name).name} {one.name} seed {number}")
            where = out / Path(name).name / one.name / f"seed-{number}"
            row = study.simulate(options, name, profile, one, number, CpuClock(), where, provenance)
            log.write(row)
            rows.append(row)
            progress.advance(task)
    console.print(_trace_table(rows))
    slowest = min(row.real_time_factor for row in rows)
    console.print(f"simulated at {slowest:.0f} x real time or faster, planning included")
    content = {"runs": [_plain(row) for row in rows]}
    _finish(out, content, accuracy_misses.draw(_frame(rows)), "accuracy_misses")


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="folder of a run, or of its server's logs")],
    dispatcher: Annotated[str, typer.Option(help="that the server used")] = dispatching.DEFAULT,
    zoo: Annotated[
        list[str], typer.Option(help="that the server served; GROUP=ZOO for each group of several")
    ] = SERVED,
    kind: Kind = "",
    seed: Seed = 0,
    out: Out = Path("logs/simulation/replay"),
) -> None:
    """A recorded run through the same engine: the same decisions? and predicted against measured latency.

    Exits with 1 when a decision came out differently.
    """
    folder = run / "logs" / "server" if (run / "logs" / "server").is_dir() else run
    recording = replaying.read_recording(folder)
    zoos = {
        group if place else DEFAULT_GROUP: place or group for group, _, place in (one.partition("=") for one in zoo)
    }
    profiles = {group: _profile(one, kind) or reference_profile(max_batch=12) for group, one in zoos.items()}
    typical = [_typical_share(profiles[group], _profile(one, kind, percentile=50.0)) for group, one in zoos.items()]
    agreement = replaying.ask_again(recording, profiles, dispatcher)
    measured = replaying.measured(recording)
    predicted = replaying.predicted(recording, profiles, dispatcher, float(np.mean(typical)), seed)
    shown = _table(
        "queue to answer, ms", ("", "frames run", *(f"p{each}" for each in replaying.PERCENTILES), "dropped")
    )
    for name, each in (("measured", measured), ("predicted", predicted)):
        shown.add_row(name, str(each.ran), *(f"{value:.1f}" for value in each.ms.values()), str(each.dropped))
    console.print(shown)
    for one in agreement.mismatches[:5]:
        console.print(f"at {one.ts} ns, device {one.device}: recorded '{one.recorded}', now '{one.replayed}'")
    same = agreement.decisions - len(agreement.mismatches)
    console.print(f"{same} of {agreement.decisions} decisions are the same")
    content = {
        "decisions": agreement.decisions,
        "mismatches": [_plain(one) for one in agreement.mismatches],
        "measured": _plain(measured),
        "predicted": _plain(predicted),
    }
    _write_summary(out, content)
    raise typer.Exit(0 if not agreement.mismatches else 1)


_COMPARE_COLUMNS = (
    "devices/clients", "policy", "min", "mean", "max", "better/equal/worse", "mean to bound", "effectiveness",
    "CPU ms", "proven",
)  # fmt: skip
_TIMING_COLUMNS = ("devices/clients", "policy", "min", "mean", "median", "p99", "wall median", "instances")
_TRACE_COLUMNS = (
    "trace", "system", "missed %", "outside outages %", "effective accuracy", "as sized", "p50/p99 ms", "switches/min",
)  # fmt: skip


def _trace_table(rows: Sequence[RunFigures]) -> Table:
    shown = _table("means over seeds ± 95 % confidence", _TRACE_COLUMNS)
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


def _profile(zoo: str, kind: str, percentile: float = 99.0) -> Profile | None:
    if zoo == "formula":
        return None
    found = load_zoo(zoo)
    return found.profile(kind or found.kinds()[0], ProfileOptions(percentile=percentile))


def _typical_share(profile: Profile, typical: Profile | None) -> float:
    if typical is None:
        return 1.0
    pairs = zip(np.ravel(typical.latency_ms), np.ravel(profile.latency_ms), strict=True)
    return float(np.mean([middle / high for middle, high in pairs]))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _table(title: str, columns: Iterable[str]) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < 2 else "right", no_wrap=index > 1)
    return made


def _frame(rows: Sequence[Any]) -> pd.DataFrame:
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def _plain(row: Any) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Size) else value for name, value in dataclasses.asdict(row).items()}


def _finish(out: Path, content: dict[str, Any], figure: Any, name: str) -> None:
    style.save(figure, out / name)
    _write_summary(out, content)


def _write_summary(out: Path, content: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content |= {"schema_version": SCHEMA_VERSION, "versions": versions(), "machine": machine()}
    (out / "summary.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {out}")
