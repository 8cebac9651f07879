"""How the captured frames ended, per client."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moonjelly.types import Outcome
from plots import style

MISSES = [outcome for outcome in Outcome if outcome.is_miss]


def draw(clients: Mapping[int, pd.DataFrame]) -> Figure:
    """Misses in percent of the captured frames, stacked by outcome, a bar per client."""
    made, axes = style.figure(height_in=2.6)
    plot = axes[0, 0]
    ids = sorted(clients)
    base = np.zeros(len(ids))
    for index, outcome in enumerate(MISSES):
        share = np.array([100.0 * (clients[one]["outcome"] == outcome.value).mean() for one in ids])
        plot.bar(
            range(len(ids)),
            share,
            bottom=base,
            width=0.6,
            label=outcome.value.lower(),
            color=style.colour(index),
            hatch=style.HATCHES[index],
            edgecolor="white",
        )
        base += share
    for place, misses in enumerate(base):
        plot.text(place, misses, f"{misses:.2f} %", ha="center", va="bottom", fontsize=7)
    plot.set_xticks(range(len(ids)), [f"client {one}" for one in ids])
    plot.set_ylabel("misses, % of captured frames")
    plot.set_ylim(0, max(1.0, float(base.max(initial=0.0)) * 1.15))
    style.legend_of(made, len(MISSES))
    return made
