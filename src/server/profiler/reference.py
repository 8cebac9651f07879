"""Writes the made-up GPU profile ``reference-gpu`` from its formula.

For simulations without a GPU: the latency of batch ``b`` at input size ``s`` is Jellyfish's simulation's quadratic in
``s`` with a floor of 6 ms, times ``0.75 + 0.25 b``, within 2 %. It is nobody's measurement and its provenance says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moonjelly import profiles
from moonjelly.errors import ProfileError
from moonjelly.version import __version__

KIND = "reference-gpu"
FLOOR_MS = 6.0
JITTER = 0.02

ACCURACY = {
    128: 0.19, 160: 0.24, 192: 0.28, 224: 0.31, 256: 0.335, 288: 0.355, 320: 0.37, 352: 0.385,
    384: 0.395, 416: 0.405, 448: 0.412, 480: 0.418, 512: 0.423, 544: 0.427, 576: 0.43, 608: 0.432,
}  # fmt: skip
"""Plausible COCO average precision of a YOLOv4 at each input size; made up."""


def latency_ms(size: int, batch: int) -> float:
    """Middle of the latency of ``batch`` frames of ``size`` x ``size`` pixels."""
    quadratic = (0.08315 * size**2 - 0.04463 * size + 0.03757) / 1000.0
    return max(FLOOR_MS, quadratic) * (0.75 + 0.25 * batch)


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
