"""Detection quality and misses against the number of clients (Fig. 8 of the Jellyfish paper)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moonjelly.summary import half_width_95
from plots import style
from plots.frames import LogError
from plots.settings import natural, setting_label


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
    """A column per setting (deadline and rate): quality above, miss rate below, a line per policy.

    Args:
        runs: ``runs.csv`` of a sweep; rows whose ``client`` is ``all`` and whose ``state`` is ``done`` are used.
        quality: column of the upper row; ``effective_accuracy`` is taken where it is unknown.

    Raises:
        LogError: no finished run.
    """
    valid = finished(runs)
    if valid[quality].isna().all():
        quality = "effective_accuracy"
    settings = sorted(valid["setting"].unique(), key=natural)
    made, axes = style.figure(2, len(settings), height_in=4.2, sharex=True, sharey="row")
    for column, setting in enumerate(settings):
        part = valid[valid["setting"] == setting]
        _lines(axes[0, column], part, quality, 1.0)
        _lines(axes[1, column], part, "miss_rate", 100.0)
        axes[0, column].set_title(setting_label(setting), fontsize=8)
        axes[1, column].set_xlabel("clients")
        axes[1, column].set_xticks(sorted(part["clients"].unique().astype(int)))
    axes[0, 0].set_ylabel(quality.replace("_", " "))
    axes[1, 0].set_ylabel("missed frames, %")
    axes[0, -1].legend(fontsize=6)
    return made


def _lines(plot: Axes, part: pd.DataFrame, column: str, scale: float) -> None:
    for index, (policy, mine) in enumerate(part.groupby("policy")):
        counts = sorted({int(count) for count in mine["clients"]})
        groups = [scale * mine.loc[mine["clients"] == count, column].to_numpy(float) for count in counts]
        plot.errorbar(
            counts,
            [float(values.mean()) for values in groups],
            yerr=[half_width_95(values.tolist()) or 0.0 for values in groups],
            marker=style.MARKERS[index],
            capsize=2,
            label=str(policy),
            **style.series(index),
        )
    plot.set_ylim(bottom=0)
