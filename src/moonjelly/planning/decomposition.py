"""A proof that no plan is better: every number of devices per lane is bounded, with each device on its own.

A *choice* says how many devices run each lane. Whatever price a client of each type has, a plan of a choice is worth at
most the prices of all clients plus, per device, the most that clients of one device are worth beyond their prices
(Lagrangian relaxation of "every client once"; Geoffrion, 1974). That most is a knapsack over all batch sizes at once,
as in :mod:`moonjelly.planning.packing`; unlike the aggregated model it sees that two devices of a lane do not share
their room. One set of prices bounds all choices. The best prices for a choice come from a linear program over fillings
of single devices, which are generated as they are needed (Gilmore and Gomory, 1961). Where a choice stays open even so,
its own aggregated model with a lane per device decides: that relaxes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from moonjelly.planning import aggregated
from moonjelly.planning.packing import Row, patient_first
from moonjelly.planning.program import Floats, Ints, Outcome, Program, Rows
from moonjelly.planning.tables import Tables

_MOST_CHOICES = 600_000  # 8 equal devices with 16 variants have 490,314
_NOTHING = 1e-6  # in units times accuracy: what solvers' tolerances may make of nothing

Solve = Callable[[Program, bool], Outcome]
"""Solves a program, in whole numbers if ``True``, else its linear relaxation with its duals."""
_Choice = NDArray[np.int16]
"""``(G,)``: the lanes that are run, sorted, one per device of a class that has any."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is proven of all plans that place every client of the tables.

    Attributes:
        bound: of their worth, in units of load times accuracy; ``inf`` when nothing is proven.
        value: worth of the best plan that was met on the way; ``-inf`` without one.
        lanes: of that plan, one per device.
        placed: per device, its clients of each type.
    """

    bound: float
    value: float = -math.inf
    lanes: tuple[int, ...] = ()
    placed: tuple[tuple[int, ...], ...] = ()


def prove(tables: Tables, least: float, solve: Solve, expired: Callable[[], bool]) -> Proof:
    """Lower the bound until it is at most ``least`` or a plan's worth, the time is up, or a program remains unsolved.

    Args:
        tables: the compiled problem.
        least: in units of load times accuracy; a choice that is worth no more is looked at no further.
        solve: see :data:`Solve`.
        expired: whether the time is up.

    Returns:
        The proof; of nothing where rates are rounded or there are too many choices.
    """
    choices = _choices(tables) if tables.on_grid else None
    if choices is None:
        return Proof(math.inf)
    prices = _Prices(tables, solve)
    open_choices = _OpenChoices(choices, least)
    open_choices.lower(*prices.bound(prices.lowest()))
    best = Proof(math.inf)
    while open_choices and not expired():
        choice = open_choices.highest()
        for total, worth in prices.fit(choice):
            open_choices.lower(total, worth)
            if expired() or total + worth[choice].sum() <= open_choices.least:
                break
        else:
            if (open_choices.highest() != choice).any():
                continue
            settled = _settle(tables, choice, solve)
            best = max(best, settled, key=lambda one: one.value)
            open_choices.least = max(least, best.value + _NOTHING)
            open_choices.settle(settled.bound)
            if settled.bound > open_choices.least:
                break
    return replace(best, bound=max(open_choices.bound, best.value))


class _OpenChoices:
    """Choices that are worth more than ``least`` for all that is known, and a bound of all choices."""

    def __init__(self, choices: NDArray[np.int16], least: float) -> None:
        self.least = least
        self._choices = choices
        self._bounds = np.full(len(choices), np.inf)
        self._closed = -math.inf

    def __bool__(self) -> bool:
        return len(self._bounds) > 0

    @property
    def bound(self) -> float:
        return max(self._closed, float(self._bounds.max(initial=-np.inf)))

    def highest(self) -> _Choice:
        """The one with the highest bound."""
        one: _Choice = self._choices[self._bounds.argmax()]
        return one

    def lower(self, total: float, worth: Floats) -> None:
        """A choice is worth at most ``total`` plus the ``worth`` of each of its lanes."""
        self._bounds = np.minimum(self._bounds, total + worth[self._choices].sum(axis=1))
        self._close()

    def settle(self, bound: float) -> None:
        """The one with the highest bound is worth at most ``bound``."""
        top = self._bounds.argmax()
        self._bounds[top] = min(self._bounds[top], bound)
        self._close()

    def _close(self) -> None:
        still = self._bounds > self.least
        self._closed = max(self._closed, float(self._bounds[~still].max(initial=-np.inf)))
        self._choices, self._bounds = self._choices[still], self._bounds[still]


def _choices(tables: Tables) -> NDArray[np.int16] | None:
    """``(K, G)``: every multiset of lanes, class by class; ``None`` when there are too many."""
    used = [(ladder, len(one.positions)) for ladder, one in zip(tables.lanes_of, tables.classes, strict=True) if ladder]
    if not used or math.prod(math.comb(len(ladder) + count - 1, count) for ladder, count in used) > _MOST_CHOICES:
        return None
    parts = (np.array(list(itertools.combinations_with_replacement(*one)), np.int16) for one in used)
    return reduce(_every_pair, parts)


def _every_pair(first: NDArray[np.int16], second: NDArray[np.int16]) -> NDArray[np.int16]:
    """Each row of ``first`` beside each of ``second``."""
    return np.hstack([np.repeat(first, len(second), axis=0), np.tile(second, (len(first), 1))])


class _Prices:
    """Prices of clients, and the fillings of single devices that they are fitted to."""

    def __init__(self, tables: Tables, solve: Solve) -> None:
        self._solve = solve
        self._rate = np.array(tables.rate, np.float64)
        self._count = np.array([len(members) for members in tables.members], np.int64)
        self._accuracy = [lane.accuracy for lane in tables.lanes]
        self._rows = [patient_first(tables, lane) for lane in tables.lanes]
        self._fillings: list[dict[bytes, Ints]] = [{} for _ in tables.lanes]

    def lowest(self) -> Floats:
        """Everybody at the least accurate lane's worth."""
        return self._rate * min(self._accuracy)

    def bound(self, price: Floats) -> tuple[float, Floats]:
        """The prices of all clients, and ``(lanes,)``: the most that one device is worth beyond; remembers how."""
        worth = np.zeros(len(self._rows))
        for lane, rows in enumerate(self._rows):
            worth[lane], filling = _best_filling(rows, self._accuracy[lane] * self._rate - price, self._count)
            self._fillings[lane][filling.tobytes()] = filling
        return float(price @ self._count), worth

    def fit(self, choice: _Choice) -> Iterator[tuple[float, Floats]]:
        """Bounds that approach the best that prices can say of ``choice``."""
        lanes, devices = np.unique(choice.astype(np.int64), return_counts=True)
        known = -1
        while known < (known := sum(len(self._fillings[lane]) for lane in lanes)):
            duals = self._solve(self._program(lanes, devices), False).duals
            if duals is None:
                return
            yield self.bound(duals[: len(self._count)])

    def _program(self, lanes: Ints, devices: Ints) -> Program:
        """How often to use each known filling; a client too few or too many costs more than any is worth."""
        used = [(row, one) for row, lane in enumerate(lanes) for one in self._fillings[lane].values()]
        kinds = len(self._count)
        taken = np.array([one for _, one in used], np.float64).T
        runs = np.zeros((len(lanes), len(used)))
        runs[[row for row, _ in used], np.arange(len(used))] = 1.0
        neither = np.zeros((len(lanes), kinds))
        matrix = np.block([[taken, np.eye(kinds), -np.eye(kinds)], [runs, neither, neither]])
        where, columns = np.nonzero(matrix)
        rows = Rows()
        upper = np.concatenate([self._count, devices]).astype(np.float64)
        lower = np.concatenate([self._count, np.full(len(lanes), -np.inf)])
        rows.add(columns, matrix[where, columns], np.bincount(where, minlength=len(matrix)), lower, upper)
        accuracy = np.array([self._accuracy[lanes[row]] for row, _ in used])
        worth = np.concatenate([accuracy * (self._rate @ taken), np.full(2 * kinds, -2.0 * self._rate.max())])
        return rows.program(worth, np.full(len(worth), np.inf))


def _best_filling(rows: list[Row], gain: Floats, count: Ints) -> tuple[float, Ints]:
    """The clients with the highest sum of gains that one device can take, over all batch sizes."""
    best = np.full(max((row.capacity for row in rows), default=0) + 1, -np.inf)  # per load
    best[0] = 0.0
    entered = []
    for row in rows:
        if gain[row.type_index] <= 0.0:
            continue
        for _ in range(count[row.type_index]):
            grown = best[: row.capacity + 1 - row.rate] + gain[row.type_index]
            better = grown > best[row.rate : row.capacity + 1]
            if not better.any():
                break
            best[row.rate : row.capacity + 1][better] = grown[better]
            entered.append((row, better))
    load = int(best.argmax())
    filling = np.zeros(len(count), np.int64)
    for row, better in reversed(entered):
        if row.rate <= load <= row.capacity and better[load - row.rate]:
            filling[row.type_index] += 1
            load -= row.rate
    return float(best.max()), filling


def _settle(tables: Tables, choice: _Choice, solve: Solve) -> Proof:
    """The best plan of a choice, and what is proven of all its plans."""
    lanes = tuple(choice.tolist())
    apart = replace(
        tables,
        classes=tuple(replace(tables.classes[tables.lanes[lane].device_class], positions=(0,)) for lane in lanes),
        lanes=tuple(replace(tables.lanes[lane], device_class=device) for device, lane in enumerate(lanes)),
        lanes_of=tuple((device,) for device in range(len(lanes))),
    )
    model = aggregated.build(apart, place_all=True, tighten=True)
    outcome = solve(model.program, True)
    if outcome.solution is None:
        return Proof(outcome.bound)
    placed = np.zeros((len(lanes), len(tables.rate)), np.int64)
    placed[model.x_lane, model.x_type] = np.rint(outcome.solution[: len(model.x_type)])
    return Proof(outcome.bound, outcome.objective, lanes, tuple(map(tuple, placed.tolist())))
