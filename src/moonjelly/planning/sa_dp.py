"""Jellyfish's own planner, the baseline: dynamic programming for the mapping, annealing for the models (section IV).

*Mapping*, given one model per device: models by decreasing accuracy; clients by decreasing budget for the model; a
knapsack whose weight and value are the frame rate, filled up to the throughput of the largest batch that the current
client's budget allows. Its usual way back takes, among equal loads, the clients that entered first: the most patient.

*Selection*: first every device's model moves by -1 or 0 until no client that could be served is left out (degrade),
then by -1, 0 or +1 for the highest request-weighted accuracy while that holds (upgrade). Mappings are remembered per
multiset of models. Last, equal models go to the devices that hold them, and batches grow as far as budgets allow.

Unlike the published code this takes any frame rates (they are put on a grid by rounding up) and several groups and
kinds of device (a model moves within the variants of its group).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning.assemble import assemble, grow_batches, previous_lanes
from moonjelly.planning.deadline import deadline
from moonjelly.planning.packing import Packer, Row
from moonjelly.planning.problem import Plan, Problem
from moonjelly.planning.sharing import share_devices
from moonjelly.planning.tables import Lane, Tables, compile_tables

_ORIGINS = ("previous", "random", "largest")


@dataclass(frozen=True)
class SaDp:
    """Simulated annealing over dynamic programming, with the paper's parameters.

    Attributes:
        hot: first temperature, in effectiveness (degrade) or accuracy (upgrade).
        cold: last temperature.
        cooling: factor per step.
        threshold: effectiveness that parts degrading from upgrading.
        origin: models at the start: ``previous`` (those the devices hold, the largest on devices that hold none),
            ``random`` or ``largest``.

    Raises:
        ConfigError: an option out of its range.
    """

    hot: float = 0.0125
    cold: float = 0.0005
    cooling: float = 0.99
    threshold: float = 1.0
    origin: str = "previous"

    def __post_init__(self) -> None:
        if self.origin not in _ORIGINS:
            raise ConfigError(
                f"policy 'sa-dp', option 'origin' = '{self.origin}'; it must be one of {', '.join(_ORIGINS)}"
            )
        if not 0.0 < self.cold <= self.hot < math.inf or not 0.0 < self.cooling < 1.0:
            raise ConfigError(
                f"policy 'sa-dp': hot = {self.hot}, cold = {self.cold} must be positive and finite, hot the higher, "
                f"and cooling = {self.cooling} between 0 and 1"
            )
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"policy 'sa-dp', option 'threshold' = {self.threshold}: it must be in [0, 1]")

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """See the module's text."""
        expired = deadline(time_budget_ms, clock)
        tables = compile_tables(problem, merge=False)
        packer = Packer(tables, by_decreasing_budget, take_late=False)
        if not tables.rate:
            return assemble(packer, ())
        search = _Search(self, packer, np.random.default_rng(seed), expired)
        models = search.run(_origin(self.origin, tables, search.rng))
        return grow_batches(problem, assemble(packer, sorted(models)))


def by_decreasing_budget(tables: Tables, lane: Lane) -> list[Row]:
    """The order of Jellyfish's mapping: clients by decreasing budget for the lane's variant."""
    clients = tables.problem.clients
    able = [one for one, batch in enumerate(lane.max_batch) if batch and tables.rate[one] <= lane.capacity[batch]]
    able.sort(key=lambda one: -clients[tables.members[one][0]].budget_ms[lane.variant])
    return [Row.of(tables, lane, one) for one in able]


def _origin(origin: str, tables: Tables, rng: np.random.Generator) -> list[int]:
    """One lane per device that has any, in the order of the positions."""
    held = previous_lanes(tables) if origin == "previous" else {}
    lanes = []
    for group, positions in share_devices(tables.problem).items():
        for position in positions:
            kind = tables.problem.devices[position].kind
            count = len(tables.problem.profiles[kind, group].variants)
            variant = int(rng.integers(count)) if origin == "random" else count - 1
            lane = held.get(position, tables.lane_at(position, group, variant))
            if lane is not None:
                lanes.append(lane)
    return lanes


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Effectiveness and request-weighted accuracy of a multiset of models."""

    effectiveness: float
    accuracy: float


class _Search:
    """Both passes over one problem."""

    def __init__(self, options: SaDp, packer: Packer, rng: np.random.Generator, expired: Callable[[], bool]) -> None:
        self.rng = rng
        self._options, self._packer, self._expired = options, packer, expired
        tables = packer.tables
        self._full = tables.full
        self._clients = sum(self._full)
        self._offered = tables.load(self._full)
        self._known: dict[tuple[int, ...], _Mapping] = {}

    def run(self, models: list[int]) -> list[int]:
        """Degrade, then upgrade."""
        threshold = self._options.threshold
        models = self._pass(models, (-1, 0), lambda one: one.effectiveness, lambda one: one.effectiveness < threshold)
        if self._map(models).effectiveness < threshold:
            return models
        return self._pass(
            models, (-1, 0, 1), lambda one: one.accuracy if one.effectiveness >= threshold else -1.0, lambda _: True
        )

    def _pass(
        self,
        models: list[int],
        steps: tuple[int, ...],
        worth: Callable[[_Mapping], float],
        go_on: Callable[[_Mapping], bool],
    ) -> list[int]:
        current, energy = models, worth(self._map(models))
        best, best_energy = current, energy
        temperature = self._options.hot
        while temperature > self._options.cold and go_on(self._map(best)) and not self._expired():
            moves = self.rng.choice(steps, len(current)).tolist()
            tried = [self._step(lane, by) for lane, by in zip(current, moves, strict=True)]
            gain = worth(self._map(tried)) - energy
            if gain >= 0.0 or self.rng.random() < math.exp(gain / temperature):
                current, energy = tried, energy + gain
                if energy > best_energy:
                    best, best_energy = current, energy
            temperature *= self._options.cooling
        return best

    def _step(self, lane: int, by: int) -> int:
        one = self._packer.tables.lanes[lane]
        return self._packer.tables.lane_index.get((one.device_class, one.group, one.variant + by), lane)

    def _map(self, models: list[int]) -> _Mapping:
        key = tuple(sorted(models))
        known = self._known.get(key)
        if known is None:
            value, left = self._packer.fill(key, self._full)
            known = _Mapping(1.0 - sum(left) / self._clients, value / self._offered)
            self._known[key] = known
        return known
