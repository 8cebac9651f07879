"""The default policy: local search over multisets of lanes, each evaluated by exact subset sums.

1. Start at the best of: what the devices hold; the best uniform variant; with many devices, the rounded linear
   relaxation of the aggregated model.
2. Anneal, then descend until no small move is better. A change against the previous plan must bring ``churn``, and
   more where there were many of late. The best plan by (clients placed, score) is kept, so the search can be cut short
   at any time.
3. If clients remain that could be served alone, the devices are overloaded: search for the largest number of clients
   that can all be admitted, light ones first; then let heavier ones take their places where there is room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning import aggregated
from moonjelly.planning.annealing import Annealer, Schedule, Solution
from moonjelly.planning.assemble import assemble, previous_lanes
from moonjelly.planning.deadline import deadline
from moonjelly.planning.exchange import exchange
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Plan, Problem
from moonjelly.planning.sharing import apportion
from moonjelly.planning.solvers import highs
from moonjelly.planning.tables import Lane, Tables, compile_tables
from moonjelly.planning.uniform import best_uniform_lanes

_MOST = 72.0
"""Over clients per device: times ``churn`` that a change must bring at most. Beyond, full devices lose too much."""

_TOLERANCE = 0.001
"""Share of the relaxation's bound that is not worth a search: with many devices rounding alone often comes closer."""
_DESCENT = 0.25
"""Share of the evaluations that are kept for the descent."""
_STRENGTHENED = 0.25
"""Share of the types that are strengthened in the relaxation: as good a start as with all of them."""


@dataclass(frozen=True)
class Multiset:
    """Local search over multisets of lanes; see the module's text.

    Attributes:
        evaluations: multisets to try in one search.
        churn: what a changed variant must bring, in accuracy of one device's part of the load: about the share of a
            planning period that is lost while the variant loads. Devices with few clients each pay less, see
            :class:`~moonjelly.planning.annealing.Annealer`.
        calm: changes per client and minute at which a further one must bring twice ``churn``; it grows with their
            fourth power, up to :data:`_MOST`: calm fleets follow their links freely, restless ones where it pays most.
        relax_from: number of devices from which on the search also starts at the linear relaxation (where HiGHS is
            installed).
        hot: first temperature, in shares of one device's part of the offered load.
        warm: first temperature when the start is the linear relaxation.
        cold: last temperature.

    Raises:
        ConfigError: an option out of its range.
    """

    evaluations: int = 1000
    churn: float = 0.002
    calm: float = 2.5
    relax_from: int = 16
    hot: float = 0.03
    warm: float = 0.005
    cold: float = 0.0005

    def __post_init__(self) -> None:
        if self.evaluations < 1:
            raise ConfigError(f"policy 'multiset', option 'evaluations' = {self.evaluations}: at least 1 is needed")
        if not 0.0 <= self.churn < math.inf:
            raise ConfigError(f"policy 'multiset', option 'churn' = {self.churn}: it must be finite and not negative")
        if not self.calm > 0.0:
            raise ConfigError(f"policy 'multiset', option 'calm' = {self.calm}: it must be positive")
        if not 0.0 < self.cold <= min(self.hot, self.warm) < math.inf:
            raise ConfigError(
                f"policy 'multiset': temperatures cold = {self.cold}, warm = {self.warm}, hot = {self.hot} "
                "must be positive and finite, cold the lowest"
            )

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """See the module's text."""
        expired = deadline(time_budget_ms, clock)
        tables = compile_tables(problem)
        packer = Packer(tables)
        if not tables.rate:
            return assemble(packer, ())
        relax_limit_s = math.inf if clock is None else time_budget_ms / 2000.0
        return _Search(self, packer, np.random.default_rng(seed), expired, relax_limit_s).run()


class _Search:
    """One call of :meth:`Multiset.plan`."""

    def __init__(
        self,
        options: Multiset,
        packer: Packer,
        rng: np.random.Generator,
        expired: Callable[[], bool],
        relax_limit_s: float,
    ) -> None:
        self._relax_limit_s = relax_limit_s
        self._options, self._packer, self._rng, self._expired = options, packer, rng, expired
        self._tables = packer.tables
        self._held = previous_lanes(self._tables)
        problem = self._tables.problem
        clients_per_device = max(1.0, len(problem.clients) / max(1, len(problem.devices)))
        growth = 1.0 + (problem.changes_per_min / clients_per_device / options.calm) ** 4
        churn = options.churn * min(growth, max(1.0, _MOST / clients_per_device))
        self._annealer = Annealer(packer, tuple(self._held.values()), churn, expired)

    def run(self) -> Plan:
        full = self._tables.full
        start, hot, bound = self._start()
        good = min(_ideal(self._tables) - 1e-9, (1.0 - _TOLERANCE) * bound)
        best = self._improve(start, full, hot, lambda one: not one.unplaced and one.score >= good)
        if not best.unplaced or self._expired():
            return assemble(self._packer, best.lanes)
        best, wanted = self._admit(best)
        return exchange(self._tables.problem, assemble(self._packer, best.lanes, wanted))

    def _schedule(self, hot: float, share: float = 1.0) -> Schedule:
        return Schedule(max(1, round(self._options.evaluations * share)), hot, self._options.cold)

    def _start(self) -> tuple[Solution, float, float]:
        """Where to start, at which temperature, and a bound of every score."""
        relaxed = self._relaxed() if len(self._tables.problem.devices) >= self._options.relax_from else None
        base, bound = relaxed or (best_uniform_lanes(self._packer), math.inf)
        start = self._annealer.rate(base, self._tables.full)
        if self._held:
            held = self._annealer.rate(self._held_lanes(base), self._tables.full)
            if not start.beats(held):
                start = held
        return start, self._options.hot if relaxed is None else self._options.warm, bound

    def _held_lanes(self, others: list[int]) -> list[int]:
        """What the devices hold; devices that hold nothing of use take lanes of their class from ``others``."""
        lanes: list[int] = []
        for index, one in enumerate(self._tables.classes):
            held = [self._held[position] for position in one.positions if position in self._held]
            spare = [lane for lane in others if self._tables.lanes[lane].device_class == index]
            lanes += held + spare[len(held) :]
        return sorted(lanes)

    def _relaxed(self) -> tuple[list[int], float] | None:
        """The linear relaxation's devices per lane, rounded, and its bound of the score where all clients are placed.

        ``None`` where HiGHS is missing or has no time; no bound where devices of one kind differ in speed, or where
        rates are rounded, which scores count and the relaxation does not.
        """
        if not highs.available() or self._expired():
            return None
        tables = self._tables
        even = _evened(tables)
        bonus = float(max(even.rate))
        model = aggregated.build(even, place_all=False, strengthen=_STRENGTHENED, bonus=bonus)
        outcome = highs.solve(model.program, integer=False, time_limit_s=self._relax_limit_s)
        if outcome.solution is None:
            return None
        shares = model.devices_per_lane(outcome.solution, len(even.lanes))
        lanes: list[int] = []
        for one, ladder in zip(even.classes, even.lanes_of, strict=True):
            if ladder:
                seats = apportion([max(float(shares[lane]), 1e-9) for lane in ladder], len(one.positions))
                lanes += _to_fastest(tables, one.kind, [even.lanes[lane] for lane in ladder], seats)
        bounded = even is tables and even.on_grid
        return sorted(lanes), outcome.bound - bonus * sum(even.full) if bounded else math.inf

    def _admit(self, plain: Solution) -> tuple[Solution, bytes]:
        """Bisect the number of clients that can all be placed, light ones and among them flexible ones first."""
        order = _admission_order(self._tables)
        found, wanted = plain, self._tables.full
        low, high = len(order) - plain.unplaced, len(order)  # low can be placed, high cannot
        while high - low > 1 and not self._expired():
            middle = (low + high) // 2
            admitted = _admitted(order[:middle], len(self._tables.rate))
            tried = self._anneal_admitted(found, admitted)
            if tried.unplaced:
                high = middle
            else:
                low, found, wanted = middle, tried, admitted
        if wanted == self._tables.full:
            return plain, wanted
        return self._improve(found, wanted, self._options.hot, lambda _: False), wanted

    def _improve(self, start: Solution, wanted: bytes, hot: float, enough: Callable[[Solution], bool]) -> Solution:
        """Anneal, then descend to where no small move is better."""
        schedule = self._schedule(hot, 1.0 - _DESCENT)
        best = self._annealer.anneal(start, wanted, schedule, self._rng, enough)
        return self._annealer.descend(best, wanted, self._options.evaluations - schedule.evaluations, enough)

    def _anneal_admitted(self, near: Solution, admitted: bytes) -> Solution:
        """A quarter of a search, which ends as soon as all are placed."""
        start = self._annealer.rate(near.lanes, admitted)
        schedule = self._schedule(self._options.hot, share=0.25)
        return self._annealer.anneal(start, admitted, schedule, self._rng, lambda one: not one.unplaced)


def _evened(tables: Tables) -> Tables:
    """The problem as if devices of one kind were equally fast: its relaxation stays small however speeds differ."""
    problem = tables.problem
    if len({one.kind for one in tables.classes}) == len(tables.classes):
        return tables
    speeds: dict[str, list[float]] = {}
    for device in problem.devices:
        speeds.setdefault(device.kind, []).append(device.speed)
    even = (replace(one, speed=math.fsum(speeds[one.kind]) / len(speeds[one.kind])) for one in problem.devices)
    return compile_tables(replace(problem, devices=tuple(even)))


def _to_fastest(tables: Tables, kind: str, lanes: list[Lane], seats: list[int]) -> list[int]:
    """Give lanes, of a kind's devices as if equally fast, to its classes: the most accurate to the fastest."""
    classes = [index for index, one in enumerate(tables.classes) if one.kind == kind]
    classes.sort(key=lambda index: -tables.classes[index].speed)
    homes = [index for index in classes for _ in tables.classes[index].positions]
    wanted = [lane for lane, count in zip(lanes, seats, strict=True) for _ in range(count)]
    return [tables.lane_index[home, lane.group, lane.variant] for home, lane in zip(homes, wanted, strict=True)]


def _ideal(tables: Tables) -> float:
    """Score of a plan in which every client is served by the most accurate lane that it allows."""
    best = [0.0] * len(tables.rate)
    for lane in reversed(tables.lanes):
        for one, batch in enumerate(lane.max_batch):
            if batch and tables.rate[one] <= lane.capacity[batch]:
                best[one] = lane.accuracy
    return sum(len(members) * rate * one for members, rate, one in zip(tables.members, tables.rate, best, strict=True))


def _admission_order(tables: Tables) -> list[int]:
    """Types, one entry per client."""
    by_lightness = sorted(range(len(tables.rate)), key=lambda one: (tables.rate[one], -tables.flexibility[one]))
    return [one for one in by_lightness for _ in tables.members[one]]


def _admitted(types: list[int], count: int) -> bytes:
    wanted = bytearray(count)
    for one in types:
        wanted[one] += 1
    return bytes(wanted)
