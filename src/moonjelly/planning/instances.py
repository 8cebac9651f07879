"""Random problems as Jellyfish's own study draws them, for benchmarks, tests and ``moonjelly simulate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moonjelly.network import budgets, prior_bytes
from moonjelly.planning.problem import Client, Device, Plan, Problem
from moonjelly.profiles import Profile
from moonjelly.reference import INPUT_SIZES, reference_profile
from moonjelly.types import DEFAULT_GROUP
from moonjelly.units import BITS_PER_MBIT

FRAME_BYTES = tuple(prior_bytes(size) for size in INPUT_SIZES)
"""Bytes of a frame per input size: raw RGB over Jellyfish's worst-case JPEG compression ratios."""

FPS_CHOICES = (10.0, 15.0, 25.0)
SLO_MS_CHOICES = (75.0, 100.0, 150.0)
RATE_RANGE_BPS = (7.5 * BITS_PER_MBIT, 50.0 * BITS_PER_MBIT)


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
