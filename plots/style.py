"""One style for every figure: readable without colour, units on the axes, vector and raster output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from moonjelly.summary import half_width_95

COLUMN_WIDTH_IN = 6.4
KINDS = ("pdf", "png")
"""Files of one figure."""
# Okabe and Ito's palette, distinguishable with any colour vision, with grey for its yellow, which a thin line on white
# does not carry; dashes and markers carry the rest.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")

_FEW_DECADES = 100.0
_SETTINGS: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
}
mpl.rcParams.update(_SETTINGS)


def colour(index: int) -> str:
    """Of the ``index``-th series of a plot."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Of the ``index``-th series of a plot; shifted in every round through the colours, so that no pair comes twice."""
    return MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]


def series(index: int) -> dict[str, Any]:
    """Keyword arguments that make the ``index``-th line of a plot distinct in colour and in dash."""
    return {"color": colour(index), "linestyle": DASHES[index % len(DASHES)]}


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis in digits: 1, 2, 5, 10, … where there is room for them, else 1, 10, 100, …"""
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _FEW_DECADES * low else (1.0,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def figure(rows: int = 1, columns: int = 1, *, height_in: float = 3.0, **options: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure and its ``(rows, columns)`` axes, in the house style.

    Args:
        rows: of axes.
        columns: of axes.
        height_in: of the whole figure, inches.
        options: of :meth:`matplotlib.figure.Figure.subplots`.
    """
    made = Figure(figsize=(COLUMN_WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False, **options)
    return made, np.asarray(axes)


def spread(count: int, at_most: int) -> list[int]:
    """At most so many of ``range(count)``, evenly spread, the first and the last among them."""
    return sorted({round(float(place)) for place in np.linspace(0, count - 1, min(count, at_most))})


def whiskers(values: Sequence[float], most: float) -> tuple[float, float]:
    """How far the 95 % confidence interval of the mean of ``values`` reaches below and above it; (0, 0) for one value.

    It ends where no value can be, at 0 and at ``most``: two repetitions that differ would have the axis show a miss
    rate of 170 %.
    """
    mean, half = float(np.mean(values)), half_width_95(values) or 0.0
    return max(0.0, min(half, mean)), max(0.0, min(half, most - mean))


def legend_of(made: Figure, columns: int = 5, *, of: Sequence[Axes] = ()) -> None:
    """One legend for all axes of a figure, or for those ``of`` it, under them, each label once."""
    found: dict[str, Any] = {}
    for axes in of or made.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    made.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=7)


def legend_below(axes: Axes, columns: int = 4) -> None:
    """A legend under the axes, where it hides no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns)


def save(made: Figure, stem: Path) -> list[Path]:
    """Write ``stem.pdf`` and ``stem.png`` and return both paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in KINDS]  # a name may have dots
    for path in paths:
        made.savefig(path, dpi=150)
    return paths
