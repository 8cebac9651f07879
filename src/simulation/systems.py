"""What is compared: a planning policy, a dispatcher and a network side, in every combination."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moonjelly import dispatching, planning
from moonjelly.errors import ConfigError
from moonjelly.latency_factor import SAFE
from moonjelly.planning.head_room import DEFAULT_RHO

NETWORKS = ("moonjelly", "jellyfish")


@dataclass(frozen=True, slots=True)
class System:
    """One way to serve.

    Attributes:
        policy: of :func:`moonjelly.planning.policy_names`.
        dispatcher: of :func:`moonjelly.dispatching.names`.
        network: ``moonjelly``: estimation, learnt frame sizes and adaptation of this library. ``jellyfish``:
            error-based filter and harmonic mean, a fixed table of frame sizes, no skipping, no new channel.
        rho: share of a device's throughput that may be planned.
        latency_factor: batches that a frame waits for, its own included; clients are told. ``None``: as few as keep
            what plans promise (:mod:`moonjelly.latency_factor`), but 2 for policies that stand for published systems.
        measures_speed: whether it counts with what its devices do, or with their profiles.
    """

    policy: str = planning.DEFAULT_POLICY
    dispatcher: str = dispatching.DEFAULT
    network: str = "moonjelly"
    rho: float = DEFAULT_RHO
    latency_factor: float | None = SAFE
    measures_speed: bool = True

    def __post_init__(self) -> None:
        known = (
            ("policy", self.policy.partition(":")[0], planning.policy_names()),
            ("dispatcher", self.dispatcher, dispatching.names()),
            ("network", self.network, NETWORKS),
        )
        for noun, value, names in known:
            if value not in names:
                raise ConfigError(f"unknown {noun} '{value}'; known: {', '.join(names)}")
        if not 0 < self.rho <= 1:
            raise ConfigError(f"'rho' = {self.rho}; it must be in (0, 1]")
        if self.latency_factor is not None and not 0 < self.latency_factor < math.inf:
            raise ConfigError(f"'latency_factor' = {self.latency_factor}; it must be positive and finite (2 is usual)")

    @property
    def fixed_factor(self) -> float | None:
        """The ``latency_factor`` that it always plans with; ``None``: it finds one."""
        return SAFE if self.latency_factor is None and planning.keeps_factor(self.policy) else self.latency_factor

    @property
    def name(self) -> str:
        """``policy+dispatcher+network``, as :func:`parse` reads it."""
        return f"{self.policy}+{self.dispatcher}+{self.network}"

    @property
    def plans_on_bandwidth(self) -> bool:
        """Whether a link that breaks the plan triggers planning; Jellyfish waits for its period."""
        return self.network == "moonjelly"


def parse(text: str) -> System:
    """A system from ``policy[+dispatcher[+network]]``; the rest is moonjelly's.

    ``sa-dp`` plans all of a device and believes its profile, as the paper does.

    Raises:
        ConfigError: more than three parts, or an unknown name.
    """
    parts = text.split("+")
    if len(parts) > 3:
        raise ConfigError(f"'{text}' has {len(parts)} parts; a system is policy[+dispatcher[+network]]")
    policy, dispatcher, network = (*parts, *(dispatching.DEFAULT, NETWORKS[0])[len(parts) - 1 :])
    paper = policy.partition(":")[0] == "sa-dp"
    return System(policy, dispatcher, network, rho=1.0 if paper else DEFAULT_RHO, measures_speed=not paper)
