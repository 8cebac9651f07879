"""``moonjelly plot``: figures from logs, as PDF and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from matplotlib.figure import Figure

from moonjelly.repository import load_zoo
from plots import adaptation, latency_cdf, outcomes, profile, style, sweep
from plots.frames import LogError, read_run

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Run = Annotated[Path, typer.Argument(help="folder of a run: a demo's, or one of a sweep")]
Table = Annotated[Path, typer.Argument(help="runs.csv of a sweep")]
Out = Annotated[Path, typer.Option(help="folder for the figure")]
ZooName = Annotated[str, typer.Option(help="its variants, in their order")]
Iterations = Annotated[int, typer.Option(help="use only the first so many repetitions; 0: all")]


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
def fig7(run: Run, zoo: ZooName = "synthetic", out: Out = Path("plots/fig_7")) -> None:
    """Adaptation over time: bandwidth, variant used, misses."""
    names = [variant.name for variant in load_zoo(zoo).variants]
    _save(adaptation.draw(read_run(run), names), out / "fig_7")


@app.command()
def fig8(table: Table, out: Out = Path("plots/fig_8"), total_iter: Iterations = 0) -> None:
    """F1 and miss rate against the number of clients, per deadline and rate."""
    for trace, runs in _read_table(table, total_iter).groupby("trace"):
        _save(sweep.draw(runs), out / f"fig_8_{trace}")


@app.command()
def fig9(run: Run, out: Out = Path("plots/fig_9")) -> None:
    """End-to-end latency distributions and how frames were missed."""
    clients = read_run(run)
    _save(latency_cdf.draw(clients), out / "fig_9")
    _save(outcomes.draw(clients), out / "fig_9_misses")


def _read_table(path: Path, total_iter: int) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as fault:
        raise LogError(f"{path} cannot be read: {fault}; 'moonjelly experiment table' writes it") from None
    if "repetition" not in table.columns:
        raise LogError(f"{path} has no finished run")
    return table[table["repetition"] < total_iter] if total_iter else table


def _save(made: Figure, stem: Path) -> None:
    for path in style.save(made, stem):
        print(path)
