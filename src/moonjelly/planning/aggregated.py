"""The aggregated model: how many clients of each type go to each lane, and how many devices run it at which batch.

It relaxes only the bin packing among devices of one lane, so its optimum, and all the more its linear relaxation's,
is an upper bound of every plan's accuracy. Variables and rows do not grow with the number of devices:

* ``x[t, l]`` clients of type ``t`` on lane ``l``; ``y[l, b]`` devices that run lane ``l`` at batch ``b``;
* every client once; no more devices than each class has;
* nested capacity: what the clients that allow at most batch ``th`` offer fits on the devices at batches up to ``th``;
* optional strengthening: a type fits on a lane no more often than its devices have whole places for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.planning.tables import Lane, Tables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class AggregatedModel:
    """A mixed-integer program: maximise ``objective @ z`` with ``row_lower <= A z <= row_upper``, ``0 <= z <= upper``.

    Attributes:
        objective: ``(C,)``; load in units times accuracy, plus ``bonus`` per placed client where asked for.
        upper: ``(C,)``.
        row_lower: ``(R,)``.
        row_upper: ``(R,)``.
        starts: ``(R + 1,)``; row ``r`` holds entries ``starts[r]:starts[r + 1]`` of ``columns`` and ``values``.
        columns: column of each entry.
        values: value of each entry.
        x_type: ``(X,)``; type of each of the first ``X`` columns.
        x_lane: ``(X,)``; its lane.
        y_lane: ``(C - X,)``; lane of each of the other columns.
        y_batch: ``(C - X,)``; its batch.
    """

    objective: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    starts: Ints
    columns: Ints
    values: Floats
    x_type: Ints
    x_lane: Ints
    y_lane: Ints
    y_batch: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """Variables, rows."""
        return len(self.objective), len(self.row_lower)

    def devices_per_lane(self, solution: Floats, lanes: int) -> Floats:
        """``(lanes,)``: sum over batches of ``y``."""
        counts: Floats = np.zeros(lanes)
        np.add.at(counts, self.y_lane, solution[len(self.x_type) :])
        return counts


def build(tables: Tables, *, place_all: bool, strengthen: bool = True, bonus: float = 0.0) -> AggregatedModel:
    """The aggregated model of a problem.

    Args:
        tables: the compiled problem.
        place_all: every client of the tables must be placed; otherwise it may be left out.
        strengthen: add the rows that tighten the linear relaxation.
        bonus: worth of a placed client beside its accuracy.
    """
    rows = _Rows()
    rate = np.array(tables.rate, np.float64)
    count = np.array([len(one) for one in tables.members], np.int64)
    blocks = [_Block(tables, index, lane) for index, lane in enumerate(tables.lanes)]
    xs = sum(len(block.types) for block in blocks)
    x_start, y_start = 0, xs
    for block in blocks:
        x_columns = np.arange(x_start, x_start + len(block.types))
        y_columns = np.arange(y_start, y_start + len(block.batches))
        x_start, y_start = x_start + len(x_columns), y_start + len(y_columns)
        _add_capacity(rows, block, x_columns, y_columns, rate)
        if strengthen and len(x_columns):
            _add_places(rows, block, x_columns, y_columns, rate, count)
    x_type = _ints([block.types for block in blocks])
    x_lane = np.repeat(np.arange(len(blocks)), [len(block.types) for block in blocks])
    y_lane = np.repeat(np.arange(len(blocks)), [len(block.batches) for block in blocks])
    _add_totals(rows, np.argsort(x_type, kind="stable"), np.bincount(x_type, minlength=len(count)), count, place_all)
    y_class = np.array([lane.device_class for lane in tables.lanes], np.int64)[y_lane]
    devices = np.array([len(one.positions) for one in tables.classes], np.int64)
    _add_totals(rows, xs + np.argsort(y_class, kind="stable"), np.bincount(y_class, minlength=len(devices)), devices)
    accuracy = np.array([lane.accuracy for lane in tables.lanes], np.float64)
    return AggregatedModel(
        objective=np.concatenate([rate[x_type] * accuracy[x_lane] + bonus, np.zeros(len(y_lane))]),
        upper=np.concatenate([count[x_type], devices[y_class]]).astype(np.float64),
        row_lower=_floats(rows.lower),
        row_upper=_floats(rows.upper),
        starts=np.concatenate([[0], np.cumsum(_ints(rows.lengths))]),
        columns=_ints(rows.columns),
        values=_floats(rows.values),
        x_type=x_type,
        x_lane=x_lane,
        y_lane=y_lane,
        y_batch=_ints([block.batches for block in blocks]),
    )


class _Block:
    """Columns of one lane: its types by increasing patience, its batches, and what a device carries at each."""

    def __init__(self, tables: Tables, index: int, lane: Lane) -> None:
        batch = np.array(lane.max_batch, np.int64)
        capacity = np.array(lane.capacity, np.int64)
        able = np.flatnonzero((batch > 0) & (np.array(tables.rate, np.int64) <= capacity[batch]))
        self.types = able[np.argsort(batch[able], kind="stable")]
        self.patience = batch[self.types]
        self.batches = np.unique(self.patience)
        self.capacity = capacity[self.batches].astype(np.float64)


class _Rows:
    """Rows as they are added, in arrays."""

    def __init__(self) -> None:
        self.lower: list[Floats] = []
        self.upper: list[Floats] = []
        self.lengths: list[Ints] = []
        self.columns: list[Ints] = []
        self.values: list[Floats] = []

    def add(self, columns: Ints, values: Floats, lengths: Ints, lower: Floats, upper: Floats) -> None:
        self.columns.append(columns)
        self.values.append(values)
        self.lengths.append(lengths)
        self.lower.append(lower)
        self.upper.append(upper)


def _floats(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _ints(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _add_capacity(rows: _Rows, block: _Block, x_columns: Ints, y_columns: Ints, rate: Floats) -> None:
    """One row per threshold: the load of the first types minus the capacity of the first batches is at most 0."""
    for upto, batch in enumerate(block.batches, start=1):
        clients = int(np.searchsorted(block.patience, batch, side="right"))
        rows.add(
            np.concatenate([x_columns[:clients], y_columns[:upto]]),
            np.concatenate([rate[block.types[:clients]], -block.capacity[:upto]]),
            np.array([clients + upto]),
            np.array([-np.inf]),
            np.array([0.0]),
        )


def _add_places(rows: _Rows, block: _Block, x_columns: Ints, y_columns: Ints, rate: Floats, count: Ints) -> None:
    """One row per type: it is placed at most as often as the devices that it allows have whole places for it."""
    places = np.minimum(count[block.types][:, None], np.floor(block.capacity[None, :] / rate[block.types][:, None]))
    present = np.concatenate(
        [np.ones((len(x_columns), 1), bool), block.batches[None, :] <= block.patience[:, None]], axis=1
    )
    columns = np.concatenate([x_columns[:, None], np.broadcast_to(y_columns, places.shape)], axis=1)
    values = np.concatenate([np.ones((len(x_columns), 1)), -places], axis=1)
    nothing = np.zeros(len(x_columns))
    rows.add(columns[present], values[present], present.sum(axis=1), nothing - np.inf, nothing)


def _add_totals(rows: _Rows, columns: Ints, lengths: Ints, total: Ints, exactly: bool = False) -> None:
    """One row per type or class: its columns add up to at most, or exactly, its total."""
    upper = total.astype(np.float64)
    rows.add(columns, np.ones(len(columns)), lengths, upper if exactly else upper - np.inf, upper)
