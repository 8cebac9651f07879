"""Baselines that look at one side of the problem only: accuracy, the client's link, or the deadline without the link.

They choose what the devices run; clients are then mapped as everywhere, on the true budgets, so that every plan holds
its constraints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning.assemble import assemble
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Client, Plan, Problem
from moonjelly.planning.sa_dp import SaDp
from moonjelly.planning.sharing import apportion, share_devices
from moonjelly.planning.tables import compile_tables


@dataclass(frozen=True)
class MaxAccuracy:
    """Greedy: the most accurate variant that any waiting client allows, device after device, whoever is left over."""

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """One sweep over the variants; nothing is drawn."""
        tables = compile_tables(problem)
        packer = Packer(tables)
        free = [len(one.positions) for one in tables.classes]
        remaining, lanes = tables.full, []
        for index, lane in enumerate(tables.lanes):
            while free[lane.device_class]:
                load, after = packer.step(index, remaining)
                if not load:
                    break
                free[lane.device_class] -= 1
                remaining = after
                lanes.append(index)
        return assemble(packer, lanes)


@dataclass(frozen=True)
class AwsClient:
    """AWStream-style (SIGCOMM 2018) rate control: each client sends the largest size that its own link carries in time.

    Nobody coordinates: devices follow demand, in proportion to the time that the demanded variants need, and a client
    is served by whatever of that its budget allows.
    """

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Count the demand; nothing is drawn."""
        tables = compile_tables(problem)
        lanes = []
        for group, positions in share_devices(problem).items():
            for position, variant in zip(positions, _demanded(problem, group, positions), strict=False):
                lane = tables.lane_at(position, group, variant)
                if lane is not None:
                    lanes.append(lane)
        return assemble(Packer(tables), sorted(lanes))


@dataclass(frozen=True)
class FixedSloShare:
    """Jellyfish without network awareness: every client's budget is a fixed share of its deadline.

    Attributes:
        share: of the deadline, in (0, 1].

    Raises:
        ConfigError: a share out of its range.
    """

    share: float = 0.75

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"policy 'fixed-slo-share', option 'share' = {self.share}: it must be in (0, 1]")

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """SA-DP on the assumed budgets chooses the variants."""
        blind = replace(problem, clients=tuple(self._blind(client) for client in problem.clients))
        chosen = SaDp().plan(blind, seed=seed, time_budget_ms=time_budget_ms, clock=clock)
        tables = compile_tables(problem)
        found = [tables.lane_at(position, one.group, one.variant) for position, one in enumerate(chosen.assignments)]
        return assemble(Packer(tables), sorted(lane for lane in found if lane is not None))

    def _blind(self, client: Client) -> Client:
        return replace(client, budget_ms=(self.share * client.slo_ms,) * len(client.budget_ms))


def _demanded(problem: Problem, group: str, positions: list[int]) -> list[int]:
    """A variant per device, most accurate first, in proportion to the device time that clients ask for."""
    if not positions:
        return []
    profile = problem.profiles[problem.devices[positions[0]].kind, group]
    seconds = [0.0] * len(profile.variants)
    for client in problem.clients:
        carried = [variant for variant, budget in enumerate(client.budget_ms) if budget > 0.0]
        if client.group == group and carried:
            seconds[carried[-1]] += client.fps / profile.throughput(carried[-1], profile.max_batch)
    seats = apportion(seconds, len(positions))
    return [variant for variant in reversed(range(len(seats))) for _ in range(seats[variant])]
