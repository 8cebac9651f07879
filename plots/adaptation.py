"""Adaptation over time (Fig. 7 of the Jellyfish paper): bandwidth, variant used, misses, per client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

_MAX_TICKS = 8


def draw(clients: Mapping[int, pd.DataFrame], variants: Sequence[str]) -> Figure:
    """A row per client: its bandwidth estimate (left axis), the variant that answered (right), misses as ticks.

    Args:
        clients: id to frames.
        variants: names in increasing accuracy; their order is the right axis.
    """
    ids = sorted(clients)
    made, axes = style.figure(len(ids), 1, height_in=0.8 + 1.8 * len(ids), sharex=True)
    for row, client in enumerate(ids):
        _draw_client(axes[row, 0], clients[client], variants, f"client {client}")
    axes[-1, 0].set_xlabel("time, s")
    return made


def _draw_client(plot: Axes, frames: pd.DataFrame, variants: Sequence[str], title: str) -> None:
    index = {name: place for place, name in enumerate(variants)}
    seconds = frames["seconds"].to_numpy()
    plot.plot(seconds, frames["bandwidth_bps"] / 1e6, label="bandwidth estimate", **style.series(0))
    plot.set_ylabel("Mbit/s")
    plot.set_ylim(bottom=0)
    used = plot.twinx()
    answered = frames["used_model"].notna() & frames["used_model"].isin(index)
    places = frames.loc[answered, "used_model"].map(index).to_numpy()
    used.plot(seconds[answered.to_numpy()], places, drawstyle="steps-post", label="variant used", **style.series(1))
    used.set_ylim(-0.5, len(variants) - 0.5)
    step = -(-len(variants) // _MAX_TICKS)
    used.set_yticks(range(0, len(variants), step), list(variants)[::step], fontsize=6)
    used.grid(visible=False)
    missed = seconds[(frames["outcome"] != "ON_TIME").to_numpy()]
    (ticks,) = plot.plot(missed, np.zeros(len(missed)), "|", color="black", markersize=10, clip_on=False, label="miss")
    ticks.set_in_layout(False)  # unclipped and perhaps empty, it has no extent that the layout could use
    plot.set_title(f"{title} (SLO {frames['slo_ms'].iloc[0]:g} ms, {len(missed)} misses)", fontsize=8, loc="left")
    lines = [*plot.get_lines(), *used.get_lines()]
    plot.legend(lines, [str(line.get_label()) for line in lines], loc="upper right", fontsize=6, ncols=3)
