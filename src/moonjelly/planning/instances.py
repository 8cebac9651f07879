"""Random problems as Jellyfish's own study draws them, for benchmarks, tests and ``moonjelly simulate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moonjelly.network import budgets, prior_bytes
from moonjelly.planning.problem import Client, Device, Plan, Problem
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


@dataclass(frozen=True, eq=False, slots=True)
class Fleet:
    """Clients as they are drawn.

    Attributes:
        fps: ``(n,)`` frame rates.
        slo_ms: ``(n,)`` deadlines.
        link_bps: ``(n,)`` uplink rates.
    """

    fps: NDArray[np.float64]
    slo_ms: NDArray[np.float64]
    link_bps: NDArray[np.float64]

    def walked(self, rng: np.random.Generator, sigma: float = 0.05) -> Fleet:
        """One step later: every link's log rate moves by ``sigma`` times a standard normal."""
        return replace(self, link_bps=self.link_bps * np.exp(sigma * rng.standard_normal(len(self.link_bps))))

    def problem(
        self,
        devices: int,
        *,
        rho: float = 1.0,
        latency_factor: float = 2.0,
        profile: Profile | None = None,
        frame_bytes: Sequence[float] = FRAME_BYTES,
        overhead_ms: float = 2.0,
        previous: Plan | None = None,
    ) -> Problem:
        """The planning problem of these clients on equal devices.

        Args:
            devices: how many.
            rho: share of the throughput that may be planned.
            latency_factor: one batch waiting and one running.
            profile: of the devices; :func:`reference_profile` by default.
            frame_bytes: per variant of the profile.
            overhead_ms: the server's own share of every deadline.
            previous: the plan in force.
        """
        profile = profile or reference_profile()
        rows = zip(self.fps.tolist(), self.slo_ms.tolist(), self.link_bps.tolist(), strict=True)
        return Problem(
            clients=tuple(
                Client(index, fps, slo_ms, budgets(slo_ms, fps, frame_bytes, link_bps, 0.0, overhead_ms, 0.0))
                for index, (fps, slo_ms, link_bps) in enumerate(rows)
            ),
            devices=tuple(Device(index, profile.device_kind) for index in range(devices)),
            profiles={(profile.device_kind, DEFAULT_GROUP): profile},
            previous=previous,
            latency_factor=latency_factor,
            rho=rho,
        )


def draw_fleet(
    rng: np.random.Generator,
    clients: int,
    *,
    fps: Sequence[float] = FPS_CHOICES,
    slo_ms: Sequence[float] = SLO_MS_CHOICES,
    rate_range_bps: tuple[float, float] = RATE_RANGE_BPS,
) -> Fleet:
    """Rates and deadlines from the choices, links uniform in the range: by default those of Jellyfish's study."""
    return Fleet(
        rng.choice(np.asarray(fps, np.float64), clients),
        rng.choice(np.asarray(slo_ms, np.float64), clients),
        rng.uniform(*rate_range_bps, clients),
    )


def random_problem(
    rng: np.random.Generator, *, devices: int, clients: int, rho: float = 1.0, profile: Profile | None = None
) -> Problem:
    """One instance of Jellyfish's study; ``profile`` is of the devices and lists its sixteen variants."""
    return draw_fleet(rng, clients).problem(devices, rho=rho, profile=profile)
