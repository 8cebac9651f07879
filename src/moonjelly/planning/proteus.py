"""Proteus-style accuracy scaling: which variant each device hosts, by demand per application and halved deadlines.

Written from the published description of the control loop (ASPLOS 2024): hosted variants and shares of the demand
maximise the accuracy-weighted rate served, while at least ``beta`` of the demand is served; ``beta`` is lowered until
that is possible. An application here is a (group, deadline). Interchangeable devices make the program separable: for
given hosts the shares are filled by accuracy, and hosts are found by steepest ascent. The clients' links play no part;
clients are then mapped on the true budgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning.assemble import assemble
from moonjelly.planning.deadline import deadline
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Plan, Problem
from moonjelly.planning.tables import Lane, Tables, compile_tables
from moonjelly.planning.uniform import best_uniform_lanes, capacity_within

_Application = tuple[str, float]  # group, deadline in ms


@dataclass(frozen=True)
class Proteus:
    """Accuracy scaling by demand.

    Attributes:
        slo_share: share of the deadline that a batch, waiting and running, may take.
        step: by which the share of the demand that must be served is lowered.

    Raises:
        ConfigError: an option out of its range.
    """

    slo_share: float = 1.0
    step: float = 0.05

    def __post_init__(self) -> None:
        for key, value in (("slo_share", self.slo_share), ("step", self.step)):
            if not 0.0 < value <= 1.0:
                raise ConfigError(f"policy 'proteus', option '{key}' = {value}: it must be in (0, 1]")

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Climb from the best uniform hosts; nothing is drawn."""
        expired = deadline(time_budget_ms, clock)
        packer = Packer(compile_tables(problem))
        if not packer.tables.rate:
            return assemble(packer, ())
        program = _Program(self, packer.tables)
        hosts = best_uniform_lanes(packer)
        worth = program.worth(hosts)
        while not expired():
            rated = ((program.worth(one), one) for one in program.neighbours(hosts))
            best_worth, best = max(rated, default=(worth, hosts))
            if best_worth <= worth:
                break
            worth, hosts = best_worth, best
        return assemble(packer, hosts)


class _Program:
    """Demand per application and what each lane carries of it."""

    def __init__(self, options: Proteus, tables: Tables) -> None:
        self._tables, self._step = tables, options.step
        self._demand: dict[_Application, float] = {}
        for client in tables.problem.clients:
            application = (client.group, client.slo_ms)
            self._demand[application] = self._demand.get(application, 0.0) + client.fps
        self._total = math.fsum(self._demand.values())
        self._rates = [self._rates_of(lane, options.slo_share) for lane in tables.lanes]

    def _rates_of(self, lane: Lane, slo_share: float) -> list[tuple[_Application, float]]:
        """Frames/s of each application that a device of ``lane`` could serve, patient applications first."""
        problem = self._tables.problem
        position = self._tables.classes[lane.device_class].positions[0]
        return [
            (application, rate)
            for application in sorted(self._demand, key=lambda one: -one[1])
            if application[0] == lane.group
            and (rate := capacity_within(problem, position, lane.group, lane.variant, slo_share * application[1])) > 0.0
        ]

    def worth(self, hosts: Sequence[int]) -> tuple[int, float]:
        """Steps of demand served, then the accuracy-weighted rate."""
        left = dict(self._demand)
        reward = 0.0
        for host in hosts:
            time_left = 1.0
            for application, rate in self._rates[host]:
                share = min(time_left, left[application] / rate)
                left[application] -= share * rate
                reward += share * rate * self._tables.lanes[host].accuracy
                time_left -= share
        served = self._total - math.fsum(left.values())
        return math.floor(served / self._total / self._step + 1e-9), reward

    def neighbours(self, hosts: Sequence[int]) -> Iterator[list[int]]:
        """Every host of a kind one lane up or down, once per distinct host."""
        for host in sorted(set(hosts)):
            ladder = self._tables.lanes_of[self._tables.lanes[host].device_class]
            rung = ladder.index(host)
            for other in (*ladder[max(rung - 1, 0) : rung], *ladder[rung + 1 : rung + 2]):
                moved = list(hosts)
                moved[moved.index(host)] = other
                yield sorted(moved)
