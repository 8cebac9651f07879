"""Random problems as Jellyfish's own study draws them, for benchmarks, tests and ``moonjelly simulate``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moonjelly.network import budgets, prior_bytes
from moonjelly.planning.problem import Client, Device, Problem
from moonjelly.profiles import Profile
from moonjelly.types import DEFAULT_GROUP, Variant
from moonjelly.units import BITS_PER_MBIT

INPUT_SIZES = tuple(range(128, 609, 32))
"""Square input sizes of the sixteen YOLOv4 variants."""

FRAME_BYTES = tuple(prior_bytes(size) for size in INPUT_SIZES)
"""Bytes of a frame per input size: raw RGB over Jellyfish's worst-case JPEG compression ratios."""

_ACCURACY = (
    0.19, 0.24, 0.28, 0.31, 0.335, 0.355, 0.37, 0.385, 0.395, 0.405, 0.412, 0.418, 0.423, 0.427, 0.43, 0.432,
)  # fmt: skip
_FLOOR_MS = 6.0
FPS_CHOICES = (10.0, 15.0, 25.0)
SLO_MS_CHOICES = (75.0, 100.0, 150.0)
RATE_RANGE_BPS = (7.5 * BITS_PER_MBIT, 50.0 * BITS_PER_MBIT)
KIND = "reference-gpu"


def reference_profile(max_batch: int = 8) -> Profile:
    """A plausible GPU: Jellyfish's quadratic in the input size, at least 6 ms; a batch of b costs 0.75 + 0.25 b."""
    single = [max(_FLOOR_MS, (0.08315 * s * s - 0.04463 * s + 0.03757) / 1000.0) for s in INPUT_SIZES]
    return Profile(
        device_kind=KIND,
        variants=tuple(Variant(f"yolov4-{size}", "yolov4", size, "fp16") for size in INPUT_SIZES),
        accuracy=_ACCURACY,
        latency_ms=tuple(tuple(one * (0.75 + 0.25 * batch) for batch in range(1, max_batch + 1)) for one in single),
    )


def random_problem(
    rng: np.random.Generator,
    *,
    devices: int,
    clients: int,
    rho: float = 1.0,
    latency_factor: float = 2.0,
    profile: Profile | None = None,
    frame_bytes: Sequence[float] = FRAME_BYTES,
    fps: Sequence[float] = FPS_CHOICES,
    slo_ms: Sequence[float] = SLO_MS_CHOICES,
    overhead_ms: float = 2.0,
) -> Problem:
    """One instance: rates and deadlines drawn from the choices, bandwidth uniform in 7.5 to 50 Mbit/s."""
    profile = profile or reference_profile()
    drawn = zip(
        rng.choice(np.asarray(fps, np.float64), clients).tolist(),
        rng.choice(np.asarray(slo_ms, np.float64), clients).tolist(),
        rng.uniform(*RATE_RANGE_BPS, clients).tolist(),
        strict=True,
    )
    return Problem(
        clients=tuple(
            Client(index, rate, deadline, budgets(deadline, rate, frame_bytes, link, 0.0, overhead_ms, 0.0))
            for index, (rate, deadline, link) in enumerate(drawn)
        ),
        devices=tuple(Device(index, profile.device_kind) for index in range(devices)),
        profiles={(profile.device_kind, DEFAULT_GROUP): profile},
        latency_factor=latency_factor,
        rho=rho,
    )
