"""Jellyfish's planning study: random instances, policies against the optimum (RTSS 2022, section on SA-DP)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning import check, create_policy
from moonjelly.planning.exact import require_solver, solve
from moonjelly.planning.instances import random_problem
from moonjelly.planning.registry import Policy
from moonjelly.profiles import Profile
from moonjelly.units import NS_PER_MS

EQUAL = 1e-6
"""Relative difference of accuracy below which two plans count as equal."""


@dataclass(frozen=True, slots=True)
class Size:
    """Devices and clients of an instance."""

    devices: int
    clients: int

    def __str__(self) -> str:
        return f"{self.devices}/{self.clients}"


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """A comparison.

    Attributes:
        sizes: of the instances.
        policies: to compare with the optimum.
        instances: per size.
        seed: instance ``i`` of a size is drawn from ``(seed, devices, clients, i)``.
        solver: of the optimum: ``auto``, ``cplex`` or ``highs``.
        time_limit_s: of each program of the solver and of the proof that follows, per instance.
        profile: of the devices; ``None``: Jellyfish's formula.
    """

    sizes: tuple[Size, ...]
    policies: tuple[str, ...]
    instances: int
    seed: int
    solver: str = "auto"
    time_limit_s: float = 10.0
    profile: Profile | None = None

    def __post_init__(self) -> None:
        for policy in self.policies:
            create_policy(policy)  # an unknown one, or an impossible option, is told before anything is measured
        require_solver(self.solver)
        if self.instances < 1:
            raise ConfigError(f"'instances' = {self.instances}; at least one is needed")
        if not 0 < self.time_limit_s < math.inf:
            raise ConfigError(f"'time_limit' = {self.time_limit_s:g}; it must be positive and finite")


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One row of ``compare.csv``: one policy on one instance.

    Attributes:
        reference: accuracy of the best plan that the solver found.
        bound: proven upper bound on every plan's accuracy.
        proven: the reference is optimal.
        ratio: ``accuracy / reference``; above 1 where the solver stopped early and the policy found more.
        ratio_to_bound: ``accuracy / bound``.
        cpu_ms: from the problem to the plan.
        solver_cpu_ms: of the reference.
    """

    devices: int
    clients: int
    instance: int
    policy: str
    accuracy: float
    effectiveness: float
    reference: float
    bound: float
    proven: bool
    ratio: float
    ratio_to_bound: float
    cpu_ms: float
    solver: str
    solver_cpu_ms: float


@dataclass(frozen=True, slots=True)
class ComparisonLine:
    """One line of the printed table: one policy at one size, over all instances."""

    size: Size
    policy: str
    instances: int
    ratio_min: float
    ratio_mean: float
    ratio_max: float
    better: int
    equal: int
    worse: int
    proven: int
    bound_mean: float
    effectiveness: float
    cpu_ms: float


def run(
    options: ComparisonOptions, cpu_clock: Clock, there: Collection[tuple[Size, int]] = ()
) -> Iterator[list[ComparisonRow]]:
    """Rows of one instance at a time, all policies.

    Args:
        options: what to compare.
        cpu_clock: CPU time of this process.
        there: instances that need not be measured again, by size and number.

    Raises:
        SolverError: the solver is missing or refuses the size.
    """
    policies = {name: create_policy(name) for name in options.policies}
    for size in options.sizes:
        for instance in range(options.instances):
            if (size, instance) not in there:
                yield _measure(options, size, instance, policies, cpu_clock)


def _measure(
    options: ComparisonOptions, size: Size, instance: int, policies: Mapping[str, Policy], cpu_clock: Clock
) -> list[ComparisonRow]:
    rng = np.random.default_rng([options.seed, size.devices, size.clients, instance])
    problem = random_problem(rng, devices=size.devices, clients=size.clients, profile=options.profile)
    started_ns = cpu_clock.now_ns()
    best = solve(problem, solver=options.solver, time_limit_s=options.time_limit_s, clock=cpu_clock)
    solver_ms = (cpu_clock.now_ns() - started_ns) / NS_PER_MS
    rows = []
    for name, policy in policies.items():
        started_ns = cpu_clock.now_ns()
        plan = policy.plan(problem, seed=instance)
        cpu_ms = (cpu_clock.now_ns() - started_ns) / NS_PER_MS
        report = check(problem, plan)
        report.require_valid()
        rows.append(
            ComparisonRow(
                devices=size.devices,
                clients=size.clients,
                instance=instance,
                policy=name,
                accuracy=report.accuracy,
                effectiveness=report.effectiveness,
                reference=best.accuracy,
                bound=best.bound,
                proven=best.proven,
                ratio=_ratio(report.accuracy, best.accuracy),
                ratio_to_bound=_ratio(report.accuracy, best.bound),
                cpu_ms=cpu_ms,
                solver=best.solver,
                solver_cpu_ms=solver_ms,
            )
        )
    return rows


def table(rows: Iterable[ComparisonRow]) -> list[ComparisonLine]:
    """Lines by size and policy, in the order of the rows."""
    groups: dict[tuple[Size, str], list[ComparisonRow]] = {}
    for row in rows:
        groups.setdefault((Size(row.devices, row.clients), row.policy), []).append(row)
    return [_line(size, policy, mine) for (size, policy), mine in groups.items()]


def _line(size: Size, policy: str, rows: Sequence[ComparisonRow]) -> ComparisonLine:
    ratios = [row.ratio for row in rows]
    return ComparisonLine(
        size=size,
        policy=policy,
        instances=len(rows),
        ratio_min=min(ratios),
        ratio_mean=statistics.fmean(ratios),
        ratio_max=max(ratios),
        better=sum(ratio > 1.0 + EQUAL for ratio in ratios),
        equal=sum(abs(ratio - 1.0) <= EQUAL for ratio in ratios),
        worse=sum(ratio < 1.0 - EQUAL for ratio in ratios),
        proven=sum(row.proven for row in rows),
        bound_mean=statistics.fmean(row.ratio_to_bound for row in rows),
        effectiveness=statistics.fmean(row.effectiveness for row in rows),
        cpu_ms=statistics.median(row.cpu_ms for row in rows),
    )


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0.0 else 1.0
