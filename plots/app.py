"""Figures from logs, as PDF and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from matplotlib.figure import Figure

from moonjelly.repository import load_zoo
from plots import (
    accuracy_misses,
    adaptation,
    bursts,
    latency_cdf,
    outcomes,
    planning_time,
    policies,
    policy_optimum,
    profile,
    stages,
    style,
    sweep,
)
from plots.frames import LogError, find_run, read_csv, read_links, read_run, read_server, read_zoo
from plots.settings import file_name, natural

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Run = Annotated[Path, typer.Argument(help="folder of a run, or of a sweep: its newest run with a valid result")]
Trace = Annotated[str, typer.Option(help="of a sweep, the newest run over this trace")]
Table = Annotated[Path, typer.Argument(help="runs.csv of a sweep, or the sweep's folder")]
Out = Annotated[Path, typer.Option(help="folder for the figure")]
ZooName = Annotated[str, typer.Option(help="its variants, in their order")]
Iterations = Annotated[int, typer.Option(min=0, help="use only the first so many repetitions; 0: all")]


@app.command()
def fig6(
    zoo: ZooName = "yolov4",
    kind: Annotated[str, typer.Option(help="device kind; the zoo's first when not given")] = "",
    out: Out = Path("plots/fig_6"),
) -> None:
    """DNN profiles: accuracy, p99 latency, throughput."""
    found = load_zoo(zoo)
    _save(profile.draw(found.profile(kind or found.kinds()[0])), out / "fig_6")


@app.command()
def fig7(
    run: Run,
    zoo: Annotated[str, typer.Option(help="whose variants, in their order; default: the run's")] = "",
    trace: Trace = "",
    out: Out = Path("plots/fig_7"),
) -> None:
    """Adaptation over time: link, bandwidth estimate, size asked for, variant used, misses."""
    run = _chosen(run, trace)
    names = [variant.name for variant in load_zoo(zoo or read_zoo(run)).variants]
    _save(adaptation.draw(_clients(run), names, read_links(run)), out / "fig_7")


@app.command()
def fig8(table: Table, out: Out = Path("plots/fig_8"), total_iter: Iterations = 0) -> None:
    """F1 and miss rate against the number of clients, per deadline and rate."""
    for trace, runs in _read_table(table, total_iter).groupby("trace"):
        _save(sweep.draw(runs), out / f"fig_8_{file_name(str(trace))}")


@app.command()
def fig9(run: Run, trace: Trace = "", out: Out = Path("plots/fig_9")) -> None:
    """End-to-end latency distributions and how frames were missed."""
    clients = _clients(_chosen(run, trace))
    _save(latency_cdf.draw(clients), out / "fig_9")
    _save(outcomes.draw(clients), out / "fig_9_misses")


@app.command("stages")
def draw_stages(run: Run, out: Out = Path("plots/out")) -> None:
    """Where the time of answered frames goes: uplink, dispatch, preprocess, queue, infer, respond."""
    run = _chosen(run)
    frames = read_server(run)
    systems = {name: frames[frames["client"] == name] for name in sorted(frames["client"].unique(), key=natural)}
    if not systems:
        raise LogError(f"no answered frame in the server's log below {run}")
    _save(stages.draw(systems), out / "stages")


@app.command("bursts")
def draw_bursts(run: Run, out: Out = Path("plots/out")) -> None:
    """Lengths of miss bursts, per client."""
    clients = _clients(_chosen(run))
    found = {f"client {number}": bursts.of_clients([frames]) for number, frames in sorted(clients.items())}
    lengths = {label: mine for label, (mine, _) in found.items()}
    _save(bursts.draw(lengths, {label: captured for label, (_, captured) in found.items()}), out / "bursts")


@app.command("policies")
def draw_policies(table: Table, out: Out = Path("plots/out"), total_iter: Iterations = 0) -> None:
    """Effective accuracy against miss rate, per policy, over a sweep."""
    _save(policies.draw(_read_table(table, total_iter)), out / "policies")


@app.command()
def optimum(
    table: Annotated[Path, typer.Argument(help="compare.csv of simulate compare, or its folder")],
    out: Out = Path("plots/out"),
) -> None:
    """Planning policies against the optimum."""
    _save(
        policy_optimum.draw(_read_results(table, "compare.csv", policy_optimum.COLUMNS, "compare")),
        out / "policy_optimum",
    )


@app.command("planning-time")
def planning_times(
    table: Annotated[Path, typer.Argument(help="timings.csv of simulate timings, or its folder")],
    out: Out = Path("plots/out"),
) -> None:
    """Planning time against the number of clients."""
    _save(
        planning_time.draw(_read_results(table, "timings.csv", planning_time.COLUMNS, "timings")), out / "planning_time"
    )


@app.command("accuracy-misses")
def accuracy_and_misses(
    table: Annotated[Path, typer.Argument(help="runs.csv of simulate trace, or its folder")],
    out: Out = Path("plots/out"),
) -> None:
    """Effective accuracy against miss rate, per system and trace."""
    _save(
        accuracy_misses.draw(_read_results(table, "runs.csv", accuracy_misses.COLUMNS, "trace")),
        out / "accuracy_misses",
    )


def _chosen(place: Path, trace: str = "") -> Path:
    run = find_run(place, trace)
    print(f"drawing {run}")
    return run


def _clients(run: Path) -> dict[int, pd.DataFrame]:
    clients = read_run(run)
    if not clients:
        raise LogError(f"no client of {run} captured a frame after the warm-up: there is nothing to draw")
    return clients


def _read_table(path: Path, total_iter: int) -> pd.DataFrame:
    table = read_csv(path / "runs.csv" if path.is_dir() else path, (), "experiment table")
    if table.empty or "repetition" not in table.columns:
        raise LogError(f"{path} has no finished run")
    return table[table["repetition"] < total_iter] if total_iter else table


def _read_results(place: Path, name: str, columns: Sequence[str], study: str) -> pd.DataFrame:
    path = place / name if place.is_dir() else place
    rows = read_csv(path, columns, f"simulate {study}")
    if rows.empty:
        raise LogError(
            f"{path} has no row; 'moonjelly simulate {study}' writes one as soon as it has measured something"
        )
    return rows


def _save(made: Figure, stem: Path) -> None:
    for path in style.save(made, stem):
        print(path)
