"""The aggregated model: how many clients of each type go to each lane, and how many devices run it at which batch.

It relaxes only the bin packing among devices of one lane, so its optimum, and all the more its linear relaxation's,
is an upper bound of every plan's accuracy. Variables and rows do not grow with the number of devices:

* ``x[t, l]`` clients of type ``t`` on lane ``l``; ``y[l, b]`` devices that run lane ``l`` at batch ``b``;
* every client once; no more devices than each class has;
* nested capacity: what the clients that allow at most batch ``th`` offer fits on the devices at batches up to ``th``;
* strengthening: a type is placed on a lane no more often than its devices have whole places for it.

Where the rates are multiples of the unit, a device's capacity is the largest load below its throughput that its
clients can add up to; otherwise it is the true throughput, so that rounding never cuts off a feasible plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.planning.packing import highest_load
from moonjelly.planning.program import Floats, Ints, Program, Rows, ints
from moonjelly.planning.tables import Lane, Tables


@dataclass(frozen=True, eq=False, slots=True)
class AggregatedModel:
    """A program and what its columns mean.

    Attributes:
        program: objective in units of load times accuracy, plus the bonus per placed client where asked for.
        x_type: ``(X,)``; type of each of the first ``X`` columns.
        x_lane: ``(X,)``; its lane.
        y_lane: ``(C - X,)``; lane of each of the other columns.
        y_batch: ``(C - X,)``; its batch.
    """

    program: Program
    x_type: Ints
    x_lane: Ints
    y_lane: Ints
    y_batch: Ints

    def devices_per_lane(self, solution: Floats, lanes: int) -> Floats:
        """``(lanes,)``: sum over batches of ``y``."""
        counts: Floats = np.zeros(lanes)
        np.add.at(counts, self.y_lane, solution[len(self.x_type) :])
        return counts


def build(
    tables: Tables, *, place_all: bool, strengthen: float = 1.0, tighten: bool = False, bonus: float = 0.0
) -> AggregatedModel:
    """The aggregated model of a problem.

    Args:
        tables: the compiled problem.
        place_all: every client of the tables must be placed; otherwise it may be left out.
        strengthen: share of the types, the least flexible first, that are strengthened. Only a linear relaxation needs
            it, for its bound; where to run what is as good from a few, for half the time.
        tighten: lower capacities to loads that clients can add up to: a better bound for more time.
        bonus: worth of a placed client beside its accuracy.
    """
    rows = Rows()
    rate = np.array(tables.rate, np.float64) if tables.on_grid else np.array(tables.true_rate, np.float64)
    count = np.array([len(one) for one in tables.members], np.int64)
    strong = np.zeros(len(count), bool)
    strong[np.argsort(tables.flexibility, kind="stable")[: math.ceil(strengthen * len(count))]] = True
    blocks = [_Block(tables, lane, tighten) for lane in tables.lanes]
    xs = sum(len(block.types) for block in blocks)
    x_start, y_start = 0, xs
    for block in blocks:
        x_columns = np.arange(x_start, x_start + len(block.types))
        y_columns = np.arange(y_start, y_start + len(block.batches))
        x_start, y_start = x_start + len(x_columns), y_start + len(y_columns)
        _add_capacity(rows, block, x_columns, y_columns, rate)
        chosen = strong[block.types]
        if chosen.any():
            _add_places(rows, block, chosen, x_columns[chosen], y_columns, rate, count)
    x_type = ints([block.types for block in blocks])
    x_lane = np.repeat(np.arange(len(blocks)), [len(block.types) for block in blocks])
    y_lane = np.repeat(np.arange(len(blocks)), [len(block.batches) for block in blocks])
    y_class = np.array([lane.device_class for lane in tables.lanes], np.int64)[y_lane]
    devices = np.array([len(one.positions) for one in tables.classes], np.int64)
    rows.add_totals(x_type, 0, count, exactly=place_all)
    rows.add_totals(y_class, xs, devices, exactly=False)
    accuracy = np.array([lane.accuracy for lane in tables.lanes], np.float64)
    return AggregatedModel(
        rows.program(
            np.concatenate([rate[x_type] * accuracy[x_lane] + bonus, np.zeros(len(y_lane))]),
            np.concatenate([count[x_type], devices[y_class]]).astype(np.float64),
        ),
        x_type,
        x_lane,
        y_lane,
        ints([block.batches for block in blocks]),
    )


class _Block:
    """Columns of one lane: its types by increasing patience, its batches, and what a device carries at each."""

    def __init__(self, tables: Tables, lane: Lane, tighten: bool) -> None:
        batch = np.array(lane.max_batch, np.int64)
        capacity = np.array(lane.capacity, np.int64)
        able = np.flatnonzero((batch > 0) & (np.array(tables.rate, np.int64) <= capacity[batch]))
        self.types = able[np.argsort(batch[able], kind="stable")]
        self.patience = batch[self.types]
        self.batches = np.unique(self.patience)
        if not tables.on_grid:
            self.capacity = np.array(lane.limit, np.float64)[self.batches]
        elif tighten:
            self.capacity = np.array([highest_load(tables, lane, int(one)) for one in self.batches], np.float64)
        else:
            self.capacity = capacity[self.batches].astype(np.float64)


def _add_capacity(rows: Rows, block: _Block, x_columns: Ints, y_columns: Ints, rate: Floats) -> None:
    """One row per threshold: the load of the first types minus the capacity of the first batches is at most 0."""
    for upto, batch in enumerate(block.batches, start=1):
        clients = int(np.searchsorted(block.patience, batch, side="right"))
        rows.add_one(
            np.concatenate([x_columns[:clients], y_columns[:upto]]),
            np.concatenate([rate[block.types[:clients]], -block.capacity[:upto]]),
            0.0,
        )


def _add_places(
    rows: Rows, block: _Block, chosen: NDArray[np.bool_], x_columns: Ints, y_columns: Ints, rate: Floats, count: Ints
) -> None:
    """One row per chosen type: it is placed at most as often as the devices that it allows have whole places for it."""
    types = block.types[chosen]
    fits = np.floor(block.capacity[None, :] / rate[types][:, None] + 1e-9)
    places = np.minimum(count[types][:, None], fits)
    present = np.concatenate(
        [np.ones((len(types), 1), bool), block.batches[None, :] <= block.patience[chosen][:, None]], axis=1
    )
    columns = np.concatenate([x_columns[:, None], np.broadcast_to(y_columns, places.shape)], axis=1)
    values = np.concatenate([np.ones((len(x_columns), 1)), -places], axis=1)
    nothing = np.zeros(len(x_columns))
    rows.add(columns[present], values[present], present.sum(axis=1), nothing - np.inf, nothing)
