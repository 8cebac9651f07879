"""Detection quality and misses against the number of clients (Fig. 8 of the Jellyfish paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style
from plots.frames import LogError

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; 1.96 beyond.
_T95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def interval95(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean; 0 for a single value."""
    count = len(values)
    if count < 2:
        return 0.0
    quantile = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    return float(quantile * np.std(values, ddof=1) / np.sqrt(count))


def draw(runs: pd.DataFrame, *, quality: str = "effective_f1") -> Figure:
    """A column per setting (deadline and rate): quality above, miss rate below, a line per policy.

    Args:
        runs: ``runs.csv`` of a sweep; rows whose ``client`` is ``all`` and whose ``state`` is ``done`` are used.
        quality: column of the upper row; ``effective_accuracy`` is taken where it is unknown.

    Raises:
        LogError: no finished run.
    """
    valid = runs[(runs["client"] == "all") & (runs["state"] == "done")] if "state" in runs else runs.iloc[:0]
    if valid.empty:
        raise LogError("the table has no finished run; 'moonjelly experiment run' makes them")
    if valid[quality].isna().all():
        quality = "effective_accuracy"
    settings = sorted(valid["setting"].unique())
    made, axes = style.figure(2, len(settings), height_in=4.2, sharex=True, sharey="row")
    for column, setting in enumerate(settings):
        part = valid[valid["setting"] == setting]
        _lines(axes[0, column], part, quality, 1.0)
        _lines(axes[1, column], part, "miss_rate", 100.0)
        axes[0, column].set_title(setting.replace("slo-", "SLO ").replace("_fps-", " ms, ") + " fps", fontsize=8)
        axes[1, column].set_xlabel("clients")
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
            yerr=[interval95(values.tolist()) for values in groups],
            marker=style.MARKERS[index],
            capsize=2,
            label=str(policy),
            **style.series(index),
        )
    plot.set_ylim(bottom=0)
