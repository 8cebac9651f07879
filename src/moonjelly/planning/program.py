"""A mixed-integer program in arrays, and what a solver says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Program:
    """Maximise ``objective @ z`` with ``row_lower <= A z <= row_upper`` and ``0 <= z <= upper``, ``z`` whole.

    Attributes:
        objective: ``(C,)``.
        upper: ``(C,)``.
        row_lower: ``(R,)``; may be ``-inf``.
        row_upper: ``(R,)``.
        starts: ``(R + 1,)``; row ``r`` holds entries ``starts[r]:starts[r + 1]`` of ``columns`` and ``values``.
        columns: column of each entry.
        values: value of each entry.
    """

    objective: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    starts: Ints
    columns: Ints
    values: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Variables, rows."""
        return len(self.objective), len(self.row_lower)


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a solver found.

    Attributes:
        status: ``optimal``, ``limit`` (time ran out) or ``infeasible``.
        solution: ``(C,)``, or ``None`` when it has none.
        objective: of the solution; ``-inf`` without one.
        bound: proven upper bound of the objective; ``inf`` when nothing is proven.
        duals: ``(R,)``; of a linear program's rows, where HiGHS has solved it.
    """

    status: str
    solution: Floats | None
    objective: float
    bound: float
    duals: Floats | None = None


class Rows:
    """Rows as they are added."""

    def __init__(self) -> None:
        self._lower: list[Floats] = []
        self._upper: list[Floats] = []
        self._lengths: list[Ints] = []
        self._columns: list[Ints] = []
        self._values: list[Floats] = []

    def add(self, columns: Ints, values: Floats, lengths: Ints, lower: Floats, upper: Floats) -> None:
        """Add ``len(lengths)`` rows; their entries follow each other in ``columns`` and ``values``."""
        self._columns.append(columns)
        self._values.append(values)
        self._lengths.append(lengths)
        self._lower.append(lower)
        self._upper.append(upper)

    def add_one(self, columns: Ints, values: Floats, upper: float) -> None:
        """Add ``values @ z[columns] <= upper``."""
        self.add(columns, values, np.array([len(columns)]), np.array([-np.inf]), np.array([upper]))

    def add_totals(self, owner: Ints, first: int, total: Ints, *, exactly: bool) -> None:
        """Per owner, its columns add up to at most, or exactly, its total.

        Args:
            owner: of column ``first + k``.
            first: column of ``owner[0]``.
            total: per owner.
            exactly: the sum must be reached.
        """
        upper = total.astype(np.float64)
        columns = first + np.argsort(owner, kind="stable")
        lengths = np.bincount(owner, minlength=len(total))
        self.add(columns, np.ones(len(columns)), lengths, upper if exactly else upper - np.inf, upper)

    def program(self, objective: Floats, upper: Floats) -> Program:
        """The program that these rows make with an objective and the columns' upper bounds."""
        return Program(
            objective=objective,
            upper=upper,
            row_lower=floats(self._lower),
            row_upper=floats(self._upper),
            starts=np.concatenate([[0], np.cumsum(ints(self._lengths))]),
            columns=ints(self._columns),
            values=floats(self._values),
        )


def floats(parts: Sequence[Floats]) -> Floats:
    """One array of all parts."""
    return np.concatenate(parts) if parts else np.zeros(0)


def ints(parts: Sequence[Ints]) -> Ints:
    """One array of all parts."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
