"""Lengths of miss bursts: how many frames in a row a client goes without an answer in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moonjelly.types import Outcome
from plots import style


def lengths(frames: pd.DataFrame) -> list[int]:
    """Lengths of the runs of consecutive misses of one client, in the order of capture."""
    missed = (frames["outcome"] != Outcome.ON_TIME.value).to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], missed, [False])).astype(np.int8)))
    return [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def draw(bursts: Mapping[str, Sequence[int]], captured: Mapping[str, int]) -> Figure:
    """Share of the captured frames that fell into a burst of at least so many misses, a line per label.

    Args:
        bursts: lengths by label (a policy, a client).
        captured: frames captured by label.
    """
    made, axes = style.figure(height_in=2.8)
    plot = axes[0, 0]
    longest = max((length for mine in bursts.values() for length in mine), default=1)
    for index, (label, mine) in enumerate(bursts.items()):
        counted = np.bincount(np.asarray(mine, dtype=np.int64), minlength=2) if len(mine) else np.zeros(2)
        frames_in = counted * np.arange(len(counted))
        at_least = 100.0 * frames_in[::-1].cumsum()[::-1][1:] / max(captured[label], 1)
        shown = np.append(at_least[at_least > 0], 0.0)
        plot.plot(
            np.arange(1, len(shown) + 1),
            shown,
            drawstyle="steps-post",
            marker=style.marker(index),
            label=f"{label} (bursts: {len(mine)})",
            **style.series(index),
        )
    if longest > 20:
        plot.set_xscale("log")
        style.plain_log_ticks(plot.xaxis)
    plot.set_xlim(0.9, max(10, longest + 1))
    plot.set_ylim(bottom=0)
    plot.set_xlabel("length of a burst, frames")
    plot.set_ylabel("frames in bursts at least\nthat long, % of captured")
    plot.legend(loc="upper right")
    return made


def of_clients(clients: Iterable[pd.DataFrame]) -> tuple[list[int], int]:
    """Burst lengths and number of captured frames of several clients together."""
    tables = list(clients)
    return [length for frames in tables for length in lengths(frames)], sum(len(frames) for frames in tables)
