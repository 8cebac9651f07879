"""Baselines that run one variant everywhere (per group): fixed, best, and switched by load.

They choose variants; clients are then mapped as everywhere, on the true budgets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning.assemble import assemble
from moonjelly.planning.head_room import limit_fps
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Plan, Problem
from moonjelly.planning.sharing import share_devices
from moonjelly.planning.tables import Tables, compile_tables
from moonjelly.profiles import Profile


@dataclass(frozen=True)
class BestUniform:
    """The variant that serves most clients when every device of a group runs it, the most accurate such one."""

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Try every variant; nothing is drawn."""
        packer = Packer(compile_tables(problem))
        return assemble(packer, best_uniform_lanes(packer))


@dataclass(frozen=True)
class Fixed:
    """One variant for good.

    Attributes:
        variant: name, or index into the zoo's order as text; empty for the last, most accurate one.
    """

    variant: str = ""

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Run :attr:`variant` on every device.

        Raises:
            ConfigError: a group has no such variant.
        """
        return _plan_uniform(problem, lambda group, _: _index_of(problem, group, self.variant))


@dataclass(frozen=True)
class ModelSwitching:
    """Model-Switching (HotCloud 2020): the load alone picks the variant with the best effective accuracy.

    Effective accuracy is the variant's accuracy times the share of the offered load that its throughput carries
    within the deadline. The link is not looked at: the deadline's share stands for it.

    Attributes:
        slo_share: share of the tightest deadline that is taken for waiting and inference.
    """

    slo_share: float = 0.75

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Look the load up; nothing is drawn."""
        return _plan_uniform(problem, lambda group, positions: self._choose(problem, group, positions))

    def _choose(self, problem: Problem, group: str, positions: list[int]) -> int:
        clients = [client for client in problem.clients if client.group == group]
        offered = math.fsum(client.fps for client in clients)
        budget_ms = self.slo_share * min(client.slo_ms for client in clients)
        count = len(_any_profile(problem, group).variants)
        carried = [
            math.fsum(capacity_within(problem, position, group, variant, budget_ms) for position in positions)
            for variant in range(count)
        ]
        accuracy = _any_profile(problem, group).accuracy
        return max(range(count), key=lambda variant: accuracy[variant] * min(1.0, carried[variant] / offered))


def best_uniform_lanes(packer: Packer) -> list[int]:
    """One lane per device that can serve some group, the same variant within a group; see :class:`BestUniform`."""
    tables = packer.tables
    lanes: list[int] = []
    for group, positions in share_devices(tables.problem).items():
        candidates = [_lanes(tables, group, positions, variant) for variant in range(_count(tables.problem, group))]
        if candidates:
            best: list[int] = max(candidates, key=lambda one: _worth(packer, one))
            lanes += best
    return sorted(lanes)


def capacity_within(problem: Problem, position: int, group: str, variant: int, budget_ms: float) -> float:
    """Frames/s that a device carries with the largest batch that ``budget_ms`` allows; 0 when none."""
    device = problem.devices[position]
    profile = problem.profiles[device.kind, group]
    return max(
        (
            limit_fps(profile, variant, batch, device.speed, problem.rho)
            for batch in range(1, profile.max_batch + 1)
            if problem.latency_factor * profile.latency(variant, batch, device.speed) <= budget_ms
        ),
        default=0.0,
    )


def _plan_uniform(problem: Problem, choose: Callable[[str, list[int]], int]) -> Plan:
    tables = compile_tables(problem)
    lanes: list[int] = []
    for group, positions in share_devices(problem).items():
        if positions:
            lanes += _lanes(tables, group, positions, choose(group, positions))
    return assemble(Packer(tables), sorted(lanes))


def _lanes(tables: Tables, group: str, positions: Iterable[int], variant: int) -> list[int]:
    found = [tables.lane_at(position, group, variant) for position in positions]
    return sorted(lane for lane in found if lane is not None)


def _worth(packer: Packer, lanes: Sequence[int]) -> tuple[int, float]:
    value, left = packer.fill(lanes, packer.tables.full)
    return -sum(left), value


def _any_profile(problem: Problem, group: str) -> Profile:
    return next(profile for (_, name), profile in problem.profiles.items() if name == group)


def _count(problem: Problem, group: str) -> int:
    return max((len(profile.variants) for (_, name), profile in problem.profiles.items() if name == group), default=0)


def _index_of(problem: Problem, group: str, variant: str) -> int:
    names = [one.name for one in _any_profile(problem, group).variants]
    if not variant:
        return len(names) - 1
    if variant in names:
        return names.index(variant)
    if variant.isdecimal() and int(variant) < len(names):
        return int(variant)
    raise ConfigError(f"group '{group}' has no variant '{variant}'; it has {', '.join(names)}")
