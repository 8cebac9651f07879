"""Detection quality and misses against the number of clients (Fig. 8 of the Jellyfish paper)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style
from plots.frames import LogError
from plots.settings import by_rate, setting_label

LEGEND_COLUMNS = 4
QUALITY_NAMES = {"effective_f1": "effective F1", "effective_accuracy": "effective accuracy"}


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows for whole runs that have a valid result.

    Raises:
        LogError: there is none.
    """
    valid = runs[(runs["client"] == "all") & (runs["state"] == "done")] if "state" in runs else runs.iloc[:0]
    if valid.empty:
        raise LogError("the table has no finished run; 'moonjelly experiment run' makes them")
    return valid


def draw(runs: pd.DataFrame, *, quality: str = "effective_f1") -> Figure:
    """Two panels per setting (deadline and rate): quality above, miss rate below, a line per policy.

    A marker is the mean over repetitions, with its 95 % confidence interval; sources are averaged within a repetition.

    Args:
        runs: ``runs.csv`` of a sweep; rows whose ``client`` is ``all`` and whose ``state`` is ``done`` are used.
        quality: column of the upper panels; ``effective_accuracy`` is taken where it is unknown.

    Raises:
        LogError: no finished run.
    """
    valid = finished(runs)
    if valid[quality].isna().all():
        quality = "effective_accuracy"
    settings = sorted(valid["setting"].unique(), key=by_rate)
    columns = 2 if len(settings) == 4 else min(3, len(settings))
    bands = -(-len(settings) // columns)
    policies = sorted(valid["policy"].unique())
    legend = -(-len(policies) // LEGEND_COLUMNS)
    made, axes = style.figure(2 * bands, columns, height_in=0.3 + 3.6 * bands + 0.15 * legend)
    drawn: tuple[list[Axes], list[Axes]] = ([], [])
    for place, (band, column) in enumerate(itertools.product(range(bands), range(columns))):
        upper, lower = axes[2 * band, column], axes[2 * band + 1, column]
        if place >= len(settings):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        part = valid[valid["setting"] == settings[place]]
        _lines(upper, part, policies, quality, 1.0)
        _lines(lower, part, policies, "miss_rate", 100.0)
        upper.set_title(setting_label(settings[place]), fontsize=8)
        lower.set_xlabel("clients")
        if column == 0:
            upper.set_ylabel(QUALITY_NAMES.get(quality, quality))
            lower.set_ylabel("missed frames, %")
        drawn[0].append(upper)
        drawn[1].append(lower)
    _same_range(drawn[0])
    _same_range(drawn[1], bottom=0.0)
    style.legend_of(made, LEGEND_COLUMNS)
    return made


def per_repetition(part: pd.DataFrame, column: str) -> pd.Series:
    """Means over sources, indexed by number of clients and repetition.

    Repetitions are what an interval is over: how videos differ says nothing of how sure a figure is.
    """
    return part.groupby(["clients", "repetition"])[column].mean().dropna()


def _lines(plot: Axes, part: pd.DataFrame, policies: Sequence[str], column: str, scale: float) -> None:
    for index, policy in enumerate(policies):
        means = scale * per_repetition(part[part["policy"] == policy], column)
        counts = sorted(set(means.index.get_level_values("clients").astype(int)))
        groups = {count: means.loc[count].tolist() for count in counts}
        if not groups:
            continue
        plot.errorbar(
            list(groups),
            [sum(values) / len(values) for values in groups.values()],
            yerr=list(zip(*(style.whiskers(values, scale) for values in groups.values()), strict=True)),
            marker=style.marker(index),
            capsize=2,
            label=str(policy),
            **style.series(index),
        )
    plot.set_xticks(sorted(part["clients"].unique().astype(int)))


def _same_range(plots: Sequence[Axes], bottom: float | None = None) -> None:
    """One scale for all panels of a kind, wide enough for each: what is compared must look as it is."""
    limits = [plot.get_ylim() for plot in plots]
    for plot in plots:
        plot.set_ylim(min(low for low, _ in limits) if bottom is None else bottom, max(high for _, high in limits))
