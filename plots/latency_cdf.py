"""End-to-end latency distributions (Fig. 9 of the Jellyfish paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plots import style
from plots.frames import answered_of


def draw_shares(systems: Mapping[str, pd.DataFrame]) -> Figure:
    """CDF of latency as a share of the deadline, over answered frames with different deadlines, per system.

    Args:
        systems: label (a policy) to frames.
    """
    made, axes = style.figure(height_in=2.8)
    plot = axes[0, 0]
    for index, (label, frames) in enumerate(systems.items()):
        answered = answered_of(frames)
        shares = np.sort((answered["e2e_latency"] / answered["slo_ms"]).to_numpy())
        plot.plot(shares, np.arange(1, len(shares) + 1) / max(len(shares), 1), label=label, **style.series(index))
    plot.axvline(1.0, color="0.4", linewidth=0.8)
    plot.set_xlabel("end-to-end latency / deadline")
    plot.set_ylabel("share of answered frames")
    plot.set_ylim(0, 1.01)
    plot.set_xlim(0, 2)
    plot.legend(loc="lower right")
    return made


def draw(clients: Mapping[int, pd.DataFrame]) -> Figure:
    """CDF of the latency of answered frames per client, with each client's deadline as a vertical line."""
    made, axes = style.figure(height_in=3.0)
    plot = axes[0, 0]
    deadlines: set[float] = set()
    for index, (client, frames) in enumerate(sorted(clients.items())):
        latency = np.sort(answered_of(frames)["e2e_latency"].to_numpy())
        slo_ms = float(frames["slo_ms"].iloc[0])
        share = np.arange(1, len(latency) + 1) / max(len(latency), 1)
        plot.plot(latency, share, label=f"client {client} (SLO {slo_ms:g} ms)", **style.series(index))
        deadlines.add(slo_ms)
    for slo_ms in sorted(deadlines):
        plot.axvline(slo_ms, color="0.4", linewidth=0.8)
        plot.annotate(f"{slo_ms:g} ms", (slo_ms, 0.02), fontsize=7, rotation=90, ha="right", va="bottom")
    plot.set_xlabel("end-to-end latency, ms")
    plot.set_ylabel("share of answered frames")
    plot.set_ylim(0, 1.01)
    plot.set_xlim(left=0)
    style.legend_of(made, 4)
    return made
