"""How long planning takes against the size of the problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning import check, create_policy
from moonjelly.planning.instances import random_problem
from moonjelly.planning.registry import Policy
from moonjelly.profiles import Profile
from moonjelly.units import NS_PER_MS
from simulation.compare import Size


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """A measurement.

    Attributes:
        sizes: in increasing order.
        policies: to time.
        instances: per size and policy.
        seed: of the instances.
        budget_s: CPU time of planning per size and policy; a policy that used it up before it had all its instances
            reports what it has and sits out the larger sizes.
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
class PlanTime:
    """One row of ``instances.csv``: one policy on one instance; ms from problem to checked plan."""

    devices: int
    clients: int
    policy: str
    instance: int
    cpu_ms: float
    wall_ms: float


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
    options: TimingOptions,
    clocks: tuple[Clock, Clock],
    passed_over: Callable[[str, Size, int], None],
    there: Iterable[PlanTime] = (),
) -> Iterator[PlanTime]:
    """Times as they are measured, size by size.

    Args:
        options: what to measure.
        clocks: CPU time of this process, and monotonic time.
        passed_over: told of each policy and size that is left out, wholly or from an instance on, because the policy
            has run out of budget; and of how many instances.
        there: what need not be measured again; it counts towards the budget.
    """
    earlier = _by_size_and_policy(there)
    exhausted: set[str] = set()
    policies = {name: create_policy(name) for name in options.policies}
    for size in options.sizes:
        for name, policy in policies.items():
            if name in exhausted:
                passed_over(name, size, options.instances)
                continue
            mine = earlier.get((size, name), [])
            done, spent_ms = {each.instance for each in mine}, sum(each.cpu_ms for each in mine)
            left = [instance for instance in range(options.instances) if instance not in done]
            while left and spent_ms <= options.budget_s * 1e3:
                measured = _measure(options, size, name, policy, left.pop(0), clocks)
                spent_ms += measured.cpu_ms
                yield measured
            if left:
                exhausted.add(name)
                passed_over(name, size, len(left))


def table(times: Iterable[PlanTime], instances: int) -> list[TimingRow]:
    """Rows by size and policy, in the order of the times; ``complete`` are those of ``instances``."""
    return [_row(size, name, mine, instances) for (size, name), mine in _by_size_and_policy(times).items()]


def _by_size_and_policy(times: Iterable[PlanTime]) -> dict[tuple[Size, str], list[PlanTime]]:
    groups: dict[tuple[Size, str], list[PlanTime]] = {}
    for each in times:
        groups.setdefault((Size(each.devices, each.clients), each.policy), []).append(each)
    return groups


def _measure(
    options: TimingOptions, size: Size, name: str, policy: Policy, instance: int, clocks: tuple[Clock, Clock]
) -> PlanTime:
    rng = np.random.default_rng([options.seed, size.devices, size.clients, instance])
    problem = random_problem(rng, devices=size.devices, clients=size.clients, profile=options.profile)
    started_ns = [clock.now_ns() for clock in clocks]
    check(problem, policy.plan(problem, seed=instance)).require_valid()
    cpu_ms, wall_ms = (
        (clock.now_ns() - start_ns) / NS_PER_MS for clock, start_ns in zip(clocks, started_ns, strict=True)
    )
    return PlanTime(size.devices, size.clients, name, instance, cpu_ms, wall_ms)


def _row(size: Size, name: str, times: Sequence[PlanTime], instances: int) -> TimingRow:
    cpu, wall = [each.cpu_ms for each in times], [each.wall_ms for each in times]
    return TimingRow(
        devices=size.devices,
        clients=size.clients,
        policy=name,
        instances=len(times),
        complete=len(times) == instances,
        cpu_ms_min=min(cpu),
        cpu_ms_mean=float(np.mean(cpu)),
        cpu_ms_median=float(np.median(cpu)),
        cpu_ms_p99=float(np.percentile(cpu, 99)),
        wall_ms_min=min(wall),
        wall_ms_mean=float(np.mean(wall)),
        wall_ms_median=float(np.median(wall)),
        wall_ms_p99=float(np.percentile(wall, 99)),
    )
