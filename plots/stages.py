"""Where the time of an answered frame goes: uplink, dispatch, preprocess, queue, infer, respond."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

STAGES = {
    "uplink": "send_net_time",
    "dispatch": "dispatch_time",
    "preprocess": "processing_time",
    "queue": "waiting_time",
    "infer": "prediction_time",
    "respond": "response_time",
}
"""Stage to its column in the server's ``frame_stats.csv``, milliseconds; uplink begins at the capture."""


def draw(systems: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean time per stage, stacked, and the median and p99 of each stage under the same marker.

    Args:
        systems: label (a policy, a client) to rows of the server's frame log with only answered frames.
    """
    made, axes = style.figure(1, 2, height_in=2.2 + 0.3 * len(systems), width_ratios=(3, 2))
    _draw_means(axes[0, 0], systems)
    _draw_spread(axes[0, 1], systems)
    style.legend_of(made, len(STAGES))
    return made


def _draw_means(plot: Axes, systems: Mapping[str, pd.DataFrame]) -> None:
    places = np.arange(len(systems))
    base = np.zeros(len(systems))
    for index, (stage, column) in enumerate(STAGES.items()):
        means = np.array([float(frames[column].mean()) for frames in systems.values()])
        plot.barh(
            places,
            means,
            left=base,
            height=0.6,
            label=stage,
            color=style.colour(index),
            hatch=style.HATCHES[index],
            edgecolor="white",
        )
        base += means
    for index, total in enumerate(base):
        plot.text(total, index, f" {total:.0f}", va="center", fontsize=7)
        plot.plot(0, index, style.marker(index), color=style.colour(index), clip_on=False)
    plot.margins(x=0.08)
    plot.set_xlim(left=0)
    plot.set_yticks(places, list(systems))
    plot.invert_yaxis()
    plot.set_xlabel("mean of answered frames, ms")


def _draw_spread(plot: Axes, systems: Mapping[str, pd.DataFrame]) -> None:
    step = 0.7 / len(systems)
    for index, frames in enumerate(systems.values()):
        for place, column in enumerate(STAGES.values()):
            median, high = (max(float(value), 1e-3) for value in np.percentile(frames[column].dropna(), (50, 99)))
            row = place + (index - (len(systems) - 1) / 2) * step
            plot.plot([median, high], [row, row], **style.series(index))
            plot.plot(median, row, style.marker(index), color=style.colour(index))
    plot.set_yticks(range(len(STAGES)), list(STAGES))
    plot.invert_yaxis()
    plot.set_xscale("log")
    style.plain_log_ticks(plot.xaxis)
    plot.set_xlabel("median (marker) to p99, ms")
