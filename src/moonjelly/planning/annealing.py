"""Simulated annealing over multisets of lanes, one lane per device.

A state is a sorted list of numbers, one per device: its lane, or its lane plus the number of lanes for a device that is
*deferred*, that is filled after those that are not. (An accurate variant for a few impatient clients is best filled
last, or it takes patient ones and leaves the impatient without a place.) Moves change one device's lane, two devices'
lanes in opposite directions, or one device's turn; always within the device's class, so that every state can be given
to the devices at hand. What annealing finds is then improved until no such move improves it, which leaves little to the
luck of the draw.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moonjelly.planning.packing import Packer

_DEADLINE_EVERY = 16  # evaluations between two looks at the clock
_BOUND_FROM = 24  # devices; with fewer, bounding a state costs more than filling them
_SINGLE_STEPS = (-3, -2, -1, 1, 2, 3)
_OPPOSITE_STEPS = sorted(itertools.product((1, 2, 3), repeat=2), key=sum)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hot.

    Attributes:
        evaluations: states to try.
        hot: first temperature, in shares of one device's part of the offered load.
        cold: last temperature, in the same unit.
    """

    evaluations: int
    hot: float
    cold: float


class Solution(NamedTuple):
    """A state and what it is worth.

    Attributes:
        lanes: sorted numbers, see the module's text.
        unplaced: clients that found no place.
        score: load times accuracy less the penalties, in units.
    """

    lanes: tuple[int, ...]
    unplaced: int
    score: float

    def beats(self, other: Solution) -> bool:
        """More clients placed, or as many and a higher score."""
        return (-self.unplaced, self.score) > (-other.unplaced, other.score)


class Annealer:
    """Searches for the best multiset of lanes.

    Args:
        packer: of the compiled problem.
        held: lanes that the devices hold; empty without a previous plan.
        churn: share of one device's part of the offered load that a change against ``held`` must bring; scaled by
            ``1 - devices / clients``, so that a device with a client of its own follows it freely.
        expired: whether the time is up.
    """

    def __init__(self, packer: Packer, held: Sequence[int], churn: float, expired: Callable[[], bool]) -> None:
        self._packer = packer
        self._expired = expired
        tables = packer.tables
        self._held = tuple(Counter(held).items())
        self._held_count = len(held)
        self._ladder = {lane: ladder for ladder in tables.lanes_of for lane in ladder}
        self._lanes = len(tables.lanes)
        self._around = _around(tables.lanes_of, self._lanes)
        self._penalty = max(tables.rate, default=0)
        devices = sum(len(one.positions) for one in tables.classes)
        self._per_device = tables.load(tables.full) / max(devices, 1)
        self._churn = churn * self._per_device * max(0.0, 1.0 - devices / max(sum(tables.full), 1))
        self._rated: dict[bytes, dict[tuple[int, ...], Solution]] = {}  # per clients that are wanted

    def rate(self, lanes: Sequence[int], wanted: bytes) -> Solution:
        """What a state is worth for the clients that are ``wanted``."""
        return self._solution(lanes, *self._packer.fill(lanes, wanted))

    def _rate_above(self, lanes: Sequence[int], wanted: bytes, offered: int, least: float) -> Solution | None:
        """:meth:`rate`; with many devices ``None`` where the score is known to be below ``least``."""
        if len(lanes) < _BOUND_FROM:
            return self.rate(lanes, wanted)
        filled = self._packer.fill_above(lanes, wanted, offered, least + self._price(lanes), self._penalty)
        return None if filled is None else self._solution(lanes, *filled)

    def _solution(self, lanes: Sequence[int], value: float, left: bytes) -> Solution:
        unplaced = sum(left)
        return Solution(tuple(lanes), unplaced, value - self._penalty * unplaced - self._price(lanes))

    def anneal(
        self,
        start: Solution,
        wanted: bytes,
        schedule: Schedule,
        rng: np.random.Generator,
        enough: Callable[[Solution], bool],
    ) -> Solution:
        """Search from ``start`` until the schedule ends, the time is up or the best found is ``enough``."""
        best = current = start
        offered = self._packer.tables.load(wanted)
        rated = self._rated.setdefault(wanted, {})
        temperature = schedule.hot * self._per_device
        cooling = (schedule.cold / schedule.hot) ** (1.0 / schedule.evaluations)
        draws = rng.random((schedule.evaluations, 5)).tolist()
        # A worsening by up to this many temperatures is accepted: Metropolis' rule with the draw made beforehand.
        patience = rng.exponential(size=schedule.evaluations).tolist()
        for turn, draw in enumerate(draws):
            if turn % _DEADLINE_EVERY == 0 and (enough(best) or self._expired()):
                break
            temperature *= cooling
            lanes = self._move(current.lanes, draw)
            if lanes is None:
                continue
            least = current.score - temperature * patience[turn]
            tried = rated.get(lanes) or self._rate_above(lanes, wanted, offered, least)
            if tried is None:
                continue
            rated[lanes] = tried
            if tried.score >= least:
                current = tried
                if tried.beats(best):
                    best = tried
        return best

    def descend(self, start: Solution, wanted: bytes, most: int, enough: Callable[[Solution], bool]) -> Solution:
        """Go to better neighbours until there is none, one is ``enough``, ``most`` were tried or the time is up."""
        best, before = start, None
        offered = self._packer.tables.load(wanted)
        rated = self._rated.setdefault(wanted, {})
        worse: set[tuple[int, ...]] = set()  # known to be no better, but not by how much
        while best is not before and not enough(best):
            before = best
            for lanes in self._neighbours(before.lanes):
                found = rated.get(lanes)
                if found is None and lanes not in worse:
                    if not most or (most % _DEADLINE_EVERY == 0 and self._expired()):
                        return best
                    most -= 1
                    found = self._rate_above(lanes, wanted, offered, best.score)
                    if found is None:
                        worse.add(lanes)
                    else:
                        rated[lanes] = found
                if found is not None and found.beats(best):
                    best = found
                    break
        return best

    def _neighbours(self, lanes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """All states that differ in one device, or in two whose lanes move in opposite directions by up to three."""
        rests = {one: [*lanes[:index], *lanes[index + 1 :]] for index, one in enumerate(lanes)}
        for one, rest in rests.items():
            deferral = one - one % self._lanes
            for lane in self._ladder_of(one):
                yield tuple(sorted([*rest, lane + deferral]))
            yield tuple(sorted([*rest, (one + self._lanes) % (2 * self._lanes)]))
        for up, down in _OPPOSITE_STEPS:
            for one, rest in rests.items():
                for other in dict.fromkeys(rest):
                    moved = [*rest, self._around[one][up]]
                    moved[rest.index(other)] = self._around[other][-down]
                    yield tuple(sorted(moved))

    def _price(self, lanes: Sequence[int]) -> float:
        """What the changes against the held lanes must bring."""
        if not self._held:
            return 0.0
        lanes = [lane % self._lanes for lane in lanes]
        changes = self._held_count - sum(min(count, lanes.count(lane)) for lane, count in self._held)
        return self._churn * changes

    def _move(self, lanes: tuple[int, ...], draw: Sequence[float]) -> tuple[int, ...] | None:
        """A neighbour of ``lanes``, sorted; ``None`` when the draw leads back to where it is."""
        kind, which, other, how, how_other = draw
        moved = list(lanes)
        first, second = int(which * len(lanes)), int(other * len(lanes))
        if kind < 0.32:
            moved[first] = self._around[lanes[first]][_SINGLE_STEPS[int(how * 6)]]
        elif kind < 0.72 and first != second:
            moved[first] = self._around[lanes[first]][1 + int(how * 2)]
            moved[second] = self._around[lanes[second]][-1 - int(how_other * 2)]
        elif kind < 0.81:
            if self._ladder_of(lanes[first]) is self._ladder_of(lanes[second]):
                moved[first] = self._around[lanes[second]][int(how * 3) - 1]
        elif kind < 0.9:
            ladder = self._ladder_of(lanes[first])
            moved[first] = ladder[int(how * len(ladder))]
        else:
            moved[first] = (lanes[first] + self._lanes) % (2 * self._lanes)
        neighbour = tuple(sorted(moved))
        return None if neighbour == lanes else neighbour

    def _ladder_of(self, number: int) -> tuple[int, ...]:
        return self._ladder[number % self._lanes]


def _around(ladders: Sequence[Sequence[int]], lanes: int) -> dict[int, tuple[int, ...]]:
    """Per number, those 0, 1, 2, 3, -3, -2 and -1 lanes up its ladder in the same turn, so that a shift is an index."""
    found = {}
    for ladder in ladders:
        for rung, lane in enumerate(ladder):
            near = [ladder[min(max(rung + by, 0), len(ladder) - 1)] for by in (0, 1, 2, 3, -3, -2, -1)]
            found[lane], found[lane + lanes] = tuple(near), tuple(other + lanes for other in near)
    return found
