"""Writes the made-up GPU of :mod:`moonjelly.reference` as a profile of a zoo, in the files that profiling writes.

Its latencies are the formula's within 2 %. It is nobody's measurement and its provenance says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moonjelly import profiles
from moonjelly.errors import ProfileError
from moonjelly.reference import ACCURACY, KIND, latency_ms
from moonjelly.version import __version__

JITTER = 0.02
"""Largest share by which a row may differ from the formula, either way."""


def write_reference(zoo: Path, *, seed: int = 0, max_batch: int = 12, rows: int = 40) -> Path:
    """Write the profile below ``zoo``; returns its directory.

    Args:
        zoo: the zoo's directory.
        seed: of the jitter.
        max_batch: batches 1..``max_batch``.
        rows: per (size, batch).

    Raises:
        ProfileError: there is one already.
    """
    directory = zoo / KIND
    if directory.exists():
        raise ProfileError(f"{directory} exists and profiles are never overwritten; remove it or name another zoo")
    draw = np.random.default_rng(seed)
    for size in ACCURACY:
        runs = {
            batch: latency_ms(size, batch) * draw.uniform(1.0 - JITTER, 1.0 + JITTER, rows)
            for batch in range(1, max_batch + 1)
        }
        profiles.write_latency(profiles.latency_file(directory, str(size)), str(size), runs)
    profiles.write_accuracy(directory / "accuracy.txt", {str(size): value for size, value in ACCURACY.items()})
    profiles.write_provenance(
        directory,
        {
            "format": 1,
            "made_by": f"moonjelly {__version__}, server.profiler.reference",
            "measured": False,
            "formula": "max(6, (0.08315 s^2 - 0.04463 s + 0.03757) / 1000) * (0.75 + 0.25 b) ms, +- 2 % uniform",
            "source": "quadratic: simulation of vuhpdc/jellyfish; floor, batches and accuracies: made up",
            "seed": seed,
            "rows": rows,
            "warmup_rows": 0,
        },
    )
    return directory
