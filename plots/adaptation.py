"""Adaptation over time (Fig. 7 of the Jellyfish paper): bandwidth, size asked for, variant used, misses, per client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plots import style

LINK_COLOUR = "0.75"
MAX_NAMES = 8


def draw(
    clients: Mapping[int, pd.DataFrame], variants: Sequence[str], links: Mapping[int, pd.DataFrame] | None = None
) -> Figure:
    """A row per client: its link and its estimate of it (left axis), variants asked and used (right), misses as ticks.

    Args:
        clients: id to frames.
        variants: names in increasing accuracy; their order is the right axis.
        links: id to the changes of the client's link, where it was shaped.
    """
    ids = sorted(clients)
    made, axes = style.figure(len(ids), 1, height_in=1.3 + 1.35 * len(ids), sharex=True)
    for row, client in enumerate(ids):
        _draw_client(axes[row, 0], clients[client], variants, f"client {client}", (links or {}).get(client))
    axes[-1, 0].set_xlabel("time, s")
    axes[-1, 0].set_xlim(0, max(1.0, *(float(frames["seconds"].max()) for frames in clients.values())))
    style.legend_of(made)
    return made


def _draw_client(
    plot: Axes, frames: pd.DataFrame, variants: Sequence[str], title: str, link: pd.DataFrame | None
) -> None:
    seconds = frames["seconds"].to_numpy()
    if link is not None:
        began = frames["capture_ts"].iloc[0] / 1e9 - seconds[0]
        changes = link["ts"].to_numpy() / 1e9 - began
        rate = np.append(link["actual_bw"].to_numpy(), link["actual_bw"].iloc[-1])
        edges = np.append(changes, max(seconds.max(), changes.max()))
        plot.fill_between(edges, rate, step="post", color=LINK_COLOUR, alpha=0.6, linewidth=0, label="link")
    plot.plot(seconds, frames["bandwidth_bps"] / 1e6, label="bandwidth estimate", **style.series(0))
    plot.set_ylabel("Mbit/s")
    plot.set_ylim(bottom=0)
    other = plot.twinx()
    _draw_variants(other, frames, "desired_model", variants, "size asked for", style.series(2) | {"linewidth": 0.9})
    _draw_variants(other, frames, "used_model", variants, "variant used", style.series(1))
    named = style.spread(len(variants), MAX_NAMES)
    other.set_ylim(-0.5, len(variants) - 0.5)
    other.set_yticks(named, [variants[place] for place in named], fontsize=6)
    other.grid(visible=False)
    missed = seconds[(frames["outcome"] != "ON_TIME").to_numpy()]
    low = np.full(len(missed), 0.04)
    plot.plot(missed, low, "|", color="black", markersize=8, transform=plot.get_xaxis_transform(), label="miss")
    misses = "1 miss" if len(missed) == 1 else f"{len(missed)} misses"
    plot.set_title(f"{title}: SLO {frames['slo_ms'].iloc[0]:g} ms, {misses}", fontsize=8, loc="left")


def _draw_variants(
    plot: Axes, frames: pd.DataFrame, column: str, variants: Sequence[str], label: str, look: dict[str, Any]
) -> None:
    index = {name: place for place, name in enumerate(variants)}
    known = frames[column].isin(index)
    places = frames.loc[known, column].map(index).to_numpy()
    plot.plot(frames.loc[known, "seconds"], places, drawstyle="steps-post", label=label, **look)
