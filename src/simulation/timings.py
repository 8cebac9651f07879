"""How long planning takes against the size of the problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning import check, create_policy
from moonjelly.planning.instances import random_problem
from moonjelly.planning.registry import Policy
from moonjelly.profiles import Profile
from moonjelly.units import NS_PER_MS, NS_PER_S
from simulation.compare import Size


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """A measurement.

    Attributes:
        sizes: in increasing order.
        policies: to time.
        instances: per size and policy.
        seed: of the instances.
        budget_s: CPU time per size and policy; a policy that used it up before it had all its instances reports what
            it has and sits out the larger sizes.
        profile: of the devices; ``None``: Jellyfish's formula.
    """

    sizes: tuple[Size, ...]
    policies: tuple[str, ...]
    instances: int
    seed: int
    budget_s: float
    profile: Profile | None = None

    def __post_init__(self) -> None:
        for policy in self.policies:
            create_policy(policy)  # an unknown one, or an impossible option, is told before anything is measured
        for name in ("instances", "budget_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"'{name}' = {getattr(self, name)}; it must be positive")


@dataclass(frozen=True, slots=True)
class TimingRow:
    """One row of ``timings.csv``: one policy at one size; times from problem to checked plan."""

    devices: int
    clients: int
    policy: str
    instances: int
    complete: bool
    cpu_ms_min: float
    cpu_ms_mean: float
    cpu_ms_median: float
    cpu_ms_p99: float
    wall_ms_min: float
    wall_ms_mean: float
    wall_ms_median: float
    wall_ms_p99: float


def run(
    options: TimingOptions, cpu_clock: Clock, wall_clock: Clock, passed_over: Callable[[str, Size], None]
) -> Iterator[TimingRow]:
    """Rows as they are measured, size by size.

    Args:
        options: what to measure.
        cpu_clock: CPU time of this process.
        wall_clock: monotonic time.
        passed_over: told of each policy and size that is left out because the policy ran out of budget before.
    """
    exhausted: set[str] = set()
    policies = {name: create_policy(name) for name in options.policies}
    for size in options.sizes:
        for name, policy in policies.items():
            if name in exhausted:
                passed_over(name, size)
                continue
            row = _measure(options, size, name, policy, (cpu_clock, wall_clock))
            if not row.complete:
                exhausted.add(name)
            yield row


def _measure(options: TimingOptions, size: Size, name: str, policy: Policy, clocks: tuple[Clock, Clock]) -> TimingRow:
    times: tuple[list[float], list[float]] = ([], [])
    begin_ns = clocks[0].now_ns()
    for instance in range(options.instances):
        rng = np.random.default_rng([options.seed, size.devices, size.clients, instance])
        problem = random_problem(rng, devices=size.devices, clients=size.clients, profile=options.profile)
        started_ns = [clock.now_ns() for clock in clocks]
        check(problem, policy.plan(problem, seed=instance)).require_valid()
        for spent, clock, start_ns in zip(times, clocks, started_ns, strict=True):
            spent.append((clock.now_ns() - start_ns) / NS_PER_MS)
        if clocks[0].now_ns() - begin_ns > options.budget_s * NS_PER_S:
            break
    cpu, wall = times
    return TimingRow(
        devices=size.devices,
        clients=size.clients,
        policy=name,
        instances=len(cpu),
        complete=len(cpu) == options.instances,
        cpu_ms_min=min(cpu),
        cpu_ms_mean=float(np.mean(cpu)),
        cpu_ms_median=float(np.median(cpu)),
        cpu_ms_p99=float(np.percentile(cpu, 99)),
        wall_ms_min=min(wall),
        wall_ms_mean=float(np.mean(wall)),
        wall_ms_median=float(np.median(wall)),
        wall_ms_p99=float(np.percentile(wall, 99)),
    )
