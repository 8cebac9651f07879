"""Planning policies against the optimum, per problem size."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from plots import style

COLUMNS = ("policy", "devices", "clients", "ratio")
"""That the table must have."""


def draw(rows: pd.DataFrame) -> Figure:
    """Mean accuracy over the optimum's with the range over instances, a group per size and a marker per policy.

    Args:
        rows: ``compare.csv`` of ``moonjelly simulate compare``.
    """
    sizes = list(dict.fromkeys(zip(rows["devices"], rows["clients"], strict=True)))
    policies = list(dict.fromkeys(rows["policy"]))
    made, axes = style.figure(height_in=2.8)
    plot = axes[0, 0]
    width = 0.8 / len(policies)
    for index, policy in enumerate(policies):
        ratios = [
            rows[(rows["policy"] == policy) & (rows["devices"] == devices) & (rows["clients"] == clients)]["ratio"]
            for devices, clients in sizes
        ]
        means = [100.0 * float(values.mean()) for values in ratios]
        low = [mean - 100.0 * float(values.min()) for mean, values in zip(means, ratios, strict=True)]
        high = [100.0 * float(values.max()) - mean for mean, values in zip(means, ratios, strict=True)]
        places = [place + (index + 0.5) * width - 0.4 for place in range(len(sizes))]
        plot.errorbar(
            places,
            means,
            yerr=[low, high],
            fmt=style.marker(index),
            color=style.colour(index),
            capsize=2,
            label=policy,
        )
    plot.axhline(100.0, color="black", linewidth=0.6)
    plot.set_xticks(range(len(sizes)), [f"{devices}/{clients}" for devices, clients in sizes])
    plot.set_xlabel("devices/clients")
    plot.set_ylabel("accuracy, % of the optimum\n(mean, least and most)")
    plot.legend()
    return made
