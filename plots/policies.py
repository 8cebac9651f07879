"""Effective accuracy against miss rate over the policies of a sweep."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from plots import accuracy_misses
from plots.sweep import finished


def draw(runs: pd.DataFrame) -> Figure:
    """A panel per trace, a marker per policy: means over the settings, intervals over repetitions.

    Only settings, sources and repetitions that every policy has finished count, so that policies are compared on the
    same runs.

    Args:
        runs: ``runs.csv`` of a sweep.

    Raises:
        LogError: no finished run.
    """
    return accuracy_misses.draw(compared(finished(runs)))


def compared(valid: pd.DataFrame) -> pd.DataFrame:
    """Per trace, policy (as ``system``) and repetition: means over what every policy has finished."""
    policies = valid["policy"].nunique()
    same = ["trace", "setting", "clients", "source", "repetition"]
    complete = valid[valid.groupby(same)["policy"].transform("nunique") == policies]
    chosen = complete if len(complete) else valid
    means = chosen.groupby(["trace", "policy", "repetition"], as_index=False)[
        ["miss_rate", "effective_accuracy"]
    ].mean()
    return means.rename(columns={"policy": "system"})
