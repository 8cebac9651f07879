"""Effective accuracy against miss rate, per system, a panel per trace."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from plots import style

COLUMNS = ("trace", "system", "miss_rate", "effective_accuracy")
"""That the table must have."""
LEGEND_COLUMNS = 2
LEGEND_LINE_IN = 0.15
"""Height of one line of the legend, inches: policies crossed with dispatchers soon make dozens."""


def draw(rows: pd.DataFrame) -> Figure:
    """Means over seeds with 95 % confidence intervals; up and left is better.

    Args:
        rows: ``runs.csv`` of ``moonjelly simulate trace``.
    """
    traces = list(dict.fromkeys(rows["trace"]))
    systems = list(dict.fromkeys(rows["system"]))
    columns = min(3, len(traces))
    lines = -(-len(traces) // columns)
    legend_in = LEGEND_LINE_IN * -(-len(systems) // LEGEND_COLUMNS)
    made, axes = style.figure(lines, columns, height_in=0.4 + 2.4 * lines + legend_in)
    for place, trace in enumerate(traces):
        plot = axes[place // columns, place % columns]
        for index, system in enumerate(systems):
            mine = rows[(rows["trace"] == trace) & (rows["system"] == system)]
            misses = (100.0 * mine["miss_rate"]).tolist()
            accuracy = mine["effective_accuracy"].tolist()
            plot.errorbar(
                sum(misses) / len(misses),
                sum(accuracy) / len(accuracy),
                xerr=[[reach] for reach in style.whiskers(misses, 100.0)],
                yerr=[[reach] for reach in style.whiskers(accuracy, 1.0)],
                fmt=style.marker(index),
                color=style.colour(index),
                capsize=2,
                label=system,
            )
        plot.set_title(str(trace).rsplit("/", maxsplit=1)[-1], fontsize=8)
        plot.set_xlim(left=0)
        plot.set_xlabel("missed frames, %")
    for spare in range(len(traces), lines * columns):
        axes[spare // columns, spare % columns].set_visible(False)
    axes[0, 0].set_ylabel("effective accuracy")
    made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=7)
    return made
