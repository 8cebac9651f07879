"""Planning time against the number of clients, both logarithmic."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from plots import style

COLUMNS = ("policy", "devices", "clients", "cpu_ms_median", "cpu_ms_p99")
"""That the table must have."""
PERIOD_MS = 500.0


def draw(rows: pd.DataFrame) -> Figure:
    """CPU time, median to p99, over clients; a line per policy and number of devices.

    Args:
        rows: ``timings.csv`` of ``moonjelly simulate timings``.
    """
    made, axes = style.figure(height_in=3.6)
    plot = axes[0, 0]
    policies = list(dict.fromkeys(rows["policy"]))
    devices = sorted(set(rows["devices"]))
    for index, policy in enumerate(policies):
        for mark, count in enumerate(devices):
            mine = rows[(rows["policy"] == policy) & (rows["devices"] == count)].sort_values("clients")
            if mine.empty:
                continue
            plot.plot(
                mine["clients"],
                mine["cpu_ms_median"],
                marker=style.marker(mark),
                label=f"{policy}, {count} devices",
                **style.series(index),
            )
            plot.fill_between(
                mine["clients"], mine["cpu_ms_median"], mine["cpu_ms_p99"], alpha=0.15, color=style.colour(index)
            )
    plot.axhline(PERIOD_MS, color="black", linewidth=0.6)
    plot.annotate("planning period", (1.0, PERIOD_MS), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    plot.set_xscale("log")
    plot.set_yscale("log")
    plot.set_xlabel("clients")
    plot.set_ylabel("CPU time of one plan, ms\n(median to p99)")
    style.legend_below(plot, columns=3)
    return made
