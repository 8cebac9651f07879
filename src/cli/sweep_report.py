"""The HTML report of a whole sweep: one self-contained file to hand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cli import pages
from cli.machine import machine, versions
from experiment_manager.runner import ATTEMPT_FILE, read_attempt
from experiment_manager.table import collect_table
from moonjelly.errors import MoonjellyError
from moonjelly.repository import load_zoo
from moonjelly.summary import half_width_95
from plots import adaptation, bursts, latency_cdf, policies, stages, sweep
from plots.frames import read_links, read_run, read_server
from plots.settings import natural, setting_label

SETTING = ["trace", "source", "setting", "clients", "policy"]
FIGURES = {
    "missed %": ("miss_rate", 100.0, 2),
    "effective accuracy": ("effective_accuracy", 1.0, 3),
    "effective F1": ("effective_f1", 1.0, 3),
    "p50 ms": ("latency_p50_ms", 1.0, 0),
    "p99 ms": ("latency_p99_ms", 1.0, 0),
    "longest burst": ("longest_miss_burst", 1.0, 1),
}
"""Column of the report to column of the table, factor and decimals."""


def write_report(out: Path) -> Path:
    """Write ``report.html`` into a sweep's folder and return its path.

    Raises:
        MoonjellyError: no run below ``out`` has been done.
    """
    table = collect_table(out)
    whole = table[table["client"] == "all"]
    done = whole[whole["state"] == "done"]
    if done.empty:
        raise MoonjellyError(f"no run below {out} has a valid result; 'moonjelly experiment run' makes them")
    sample = read_attempt(out / done["run"].iloc[0] / ATTEMPT_FILE)
    return pages.write(
        out / "report.html",
        "sweep.html.j2",
        counts={"all": len(whole), "done": len(done)},
        axes="; ".join(f"{name} {_listed(done[name])}" for name in ("trace", "policy", "clients", "setting", "source")),
        tiles=list(_tiles(done)),
        refused=whole[whole["state"] != "done"][["run", "state", "reason"]].to_dict("records"),
        figures=pages.embed(_figures(out, done, sample["conditions"]["zoo"])),
        columns=[*SETTING, "runs", *FIGURES],
        rows=list(_rows(done)),
        conditions=sample["conditions"],
        machine=machine(),
        versions=versions(),
    )


def _listed(values: pd.Series) -> str:
    return ", ".join(setting_label(value) for value in sorted(map(str, values.unique()), key=natural))


def _tiles(done: pd.DataFrame) -> Iterator[dict[str, str]]:
    for policy, mine in policies.compared(done).groupby("system"):
        misses, accuracy = 100 * mine["miss_rate"].mean(), mine["effective_accuracy"].mean()
        yield {"value": f"{misses:.2f} % / {accuracy:.3f}", "what": f"{policy}: missed / effective accuracy"}


def _rows(done: pd.DataFrame) -> Iterator[list[str]]:
    groups = sorted(done.groupby(SETTING), key=lambda one: [natural(str(word)) for word in one[0]])
    for key, part in groups:
        trace, source, setting, clients, policy = (str(word) for word in key)
        cells = [_with_interval(part[column].dropna() * factor, digits) for column, factor, digits in FIGURES.values()]
        yield [trace, source, setting_label(setting), clients, policy, str(len(part)), *cells]


def _with_interval(values: pd.Series, digits: int) -> str:
    if values.empty:
        return "–"
    half = half_width_95(values.tolist())
    return f"{values.mean():.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def _figures(out: Path, done: pd.DataFrame, zoo: str) -> Iterator[tuple[str, str, Figure]]:
    yield (
        "Accuracy against misses",
        "A marker per policy; settings averaged over the runs that all policies have finished, 95 % intervals over "
        "repetitions. Up and left is better.",
        policies.draw(done),
    )
    for trace, mine in done.groupby("trace"):
        yield f"Clients, {trace}", "Quality and misses against the number of clients, per setting.", sweep.draw(mine)
    frames = {policy: _frames(out, mine) for policy, mine in _by_policy(done)}
    found = {policy: bursts.of_clients(tables) for policy, tables in frames.items()}
    yield (
        "Latency",
        "Capture at the client to result at the client as a share of the deadline, over answered frames.",
        latency_cdf.draw_shares({policy: pd.concat(tables) for policy, tables in frames.items()}),
    )
    yield (
        "Miss bursts",
        "How many frames in a row a client goes without an answer in time.",
        bursts.draw({p: lengths for p, (lengths, _) in found.items()}, {p: count for p, (_, count) in found.items()}),
    )
    yield (
        "Stages",
        "Where the time of an answered frame goes; uplink includes encoding.",
        stages.draw(
            {policy: pd.concat([read_server(out / run) for run in mine["run"]]) for policy, mine in _by_policy(done)}
        ),
    )
    yield from _adaptation(out, done, [variant.name for variant in load_zoo(zoo).variants])


def _adaptation(out: Path, done: pd.DataFrame, variants: list[str]) -> Iterator[tuple[str, str, Figure]]:
    """Per trace, the first run with the most clients, shown in full."""
    for trace, mine in done.groupby("trace"):
        run = str(mine.sort_values(["clients", "run"], ascending=[False, True])["run"].iloc[0])
        drawn = adaptation.draw(read_run(out / run), variants, read_links(out / run))
        yield f"Adaptation, {trace}", f"One run, {run}: its links, estimates and variants; ticks are misses.", drawn


def _by_policy(done: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for policy, mine in done.groupby("policy"):
        yield str(policy), mine


def _frames(out: Path, mine: pd.DataFrame) -> list[pd.DataFrame]:
    runs: list[Mapping[int, Any]] = [read_run(out / run) for run in mine["run"]]
    return [frames for run in runs for frames in run.values()]
