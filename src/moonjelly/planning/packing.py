"""How well a multiset of lanes serves the clients: an exact subset sum per device, over all batch sizes at once.

Devices are filled one after the other, usually by decreasing accuracy. For one device the reachable loads are the bits
of an integer: clients enter in order of decreasing patience (largest batch that their budget allows), and a load is
reachable through a client only up to the capacity at that client's batch. The highest bit is then the largest load that
some batch size can carry with clients that all allow it (``docs/planning.md``).

A step is a function of (lane, clients that remain) alone and is remembered, so a search that changes one device pays
for the devices after it only where other clients remain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import mul
from typing import NamedTuple

from moonjelly.planning.tables import Lane, Tables

_MEMORY_LIMIT = 100_000  # remembered steps, a few hundred bytes each
_ROUNDING = 1e-6  # in units times accuracy: what sums of floats may lose


class Row(NamedTuple):
    """One client type on one lane."""

    type_index: int
    rate: int
    capacity: int
    """Units of load that the type's largest batch carries."""
    mask: int
    """Bits of the loads up to ``capacity``."""
    full: int
    """The bit of ``capacity``."""

    @staticmethod
    def of(tables: Tables, lane: Lane, type_index: int) -> Row:
        """The row of a type that ``lane`` can serve."""
        capacity = lane.capacity[lane.max_batch[type_index]]
        return Row(type_index, tables.rate[type_index], capacity, (2 << capacity) - 1, 1 << capacity)


_Entry = tuple[int, Row]
"""The loads that were reachable before a client entered the subset sum, and its row."""


RowOrder = Callable[[Tables, Lane], Sequence[Row]]
"""The types that a lane can serve, in the order in which they enter the subset sum."""


def patient_first(tables: Tables, lane: Lane) -> list[Row]:
    """Patient types first; among equals those that few lanes could serve, then light ones.

    Once a device is full nobody enters any more, so flexible clients are left for the devices that follow.
    """
    able = [one for one, batch in enumerate(lane.max_batch) if batch and tables.rate[one] <= lane.capacity[batch]]
    able.sort(key=lambda one: (-lane.max_batch[one], tables.flexibility[one], tables.rate[one]))
    return [Row.of(tables, lane, one) for one in able]


class Packer:
    """Fills devices; remembers every step it has computed.

    A lane may also be given as its index plus the number of lanes: sorted, such devices come after all others.

    Args:
        tables: the compiled problem.
        order: of the rows of each lane.
        take_late: among equal loads take the clients that entered last rather than first.
    """

    def __init__(self, tables: Tables, order: RowOrder = patient_first, *, take_late: bool = True) -> None:
        self.tables = tables
        self._accuracy = 2 * [lane.accuracy for lane in tables.lanes]
        self._order = order
        self._rows: dict[int, Sequence[Row]] = {}
        self._take = _take_late if take_late else _take_early
        steps: list[dict[bytes, tuple[int, bytes]]] = [{} for _ in tables.lanes]
        self._steps = 2 * steps
        self._remembered = 0
        everybody = tables.full
        self._most = cache(lambda lane: self.step(lane, everybody)[0])
        self._heaviest = max(tables.rate, default=1)

    def fill(self, lanes: Iterable[int], remaining: bytes) -> tuple[float, bytes]:
        """Fill one device per entry of ``lanes``.

        Args:
            lanes: in the order in which they are filled.
            remaining: clients of each type that want a place.

        Returns:
            Sum over the placed clients of load in units times accuracy, and the clients that found no place.
        """
        value = 0.0
        steps, accuracy = self._steps, self._accuracy
        for lane in lanes:
            known = steps[lane].get(remaining)
            if known is None:
                known = self._compute(lane, remaining)
            load, remaining = known
            value += load * accuracy[lane]
        return value, remaining

    def fill_above(
        self, lanes: Sequence[int], remaining: bytes, offered: int, least: float, penalty: float
    ) -> tuple[float, bytes] | None:
        """:meth:`fill`, given up as soon as its worth is known to stay below ``least``.

        The worth is the value less ``penalty`` per client without a place. Its bound: every device that is not filled
        yet takes the most that it could take of all clients, the least accurate ones what is then left to offer.

        Args:
            lanes: see :meth:`fill`; by decreasing accuracy.
            remaining: see :meth:`fill`.
            offered: load in units of ``remaining``.
            least: that the worth should reach.
            penalty: not negative.
        """
        steps, accuracy, most = self._steps, self._accuracy, self._most
        count = len(self.tables.lanes)
        ranked = lanes if lanes[-1] < count else sorted(lane % count for lane in lanes)
        loads = list(map(most, ranked))
        bound = sum(map(mul, loads, map(accuracy.__getitem__, ranked))) - least + _ROUNDING
        spare = sum(loads) - offered  # beyond what the devices up to ``last`` take
        last = len(ranked) - 1
        while spare > loads[last]:
            spare -= loads[last]
            bound -= loads[last] * accuracy[ranked[last]]
            last -= 1
        value = 0.0
        for lane in lanes:
            if bound < (spare * accuracy[ranked[last]] if spare > 0 else penalty * -(spare // self._heaviest)):
                return None
            load, remaining = steps[lane].get(remaining) or self._compute(lane, remaining)
            value += load * accuracy[lane]
            if short := most(lane) - load:
                spare -= short
                bound -= short * accuracy[lane]
                while spare < 0 and last + 1 < len(ranked):
                    last += 1
                    spare += loads[last]
                    bound += loads[last] * accuracy[ranked[last]]
        return value, remaining

    def step(self, lane: int, remaining: bytes) -> tuple[int, bytes]:
        """Fill one device: the load in units that it takes, and the clients that remain."""
        return self._steps[lane].get(remaining) or self._compute(lane, remaining)

    def _compute(self, lane: int, remaining: bytes) -> tuple[int, bytes]:
        if self._remembered >= _MEMORY_LIMIT:
            for memory in self._steps:
                memory.clear()
            self._remembered = 0
        lane %= len(self.tables.lanes)
        if lane not in self._rows:
            self._rows[lane] = self._order(self.tables, self.tables.lanes[lane])
        reachable, entries = _reach(self._rows[lane], remaining)
        result = reachable.bit_length() - 1, self._take(reachable, entries, remaining)
        self._steps[lane][remaining] = result
        self._remembered += 1
        return result


def highest_load(tables: Tables, lane: Lane, batch: int) -> int:
    """The largest load within the capacity of ``batch`` that all clients who allow it can add up to."""
    capacity = lane.capacity[batch]
    rows = [
        Row(one, tables.rate[one], capacity, (2 << capacity) - 1, 1 << capacity)
        for one, patience in enumerate(lane.max_batch)
        if patience >= batch
    ]
    return _reach(rows, tables.full)[0].bit_length() - 1


def _reach(rows: Sequence[Row], remaining: bytes) -> tuple[int, list[_Entry]]:
    """Bits of the reachable loads, and who entered on the way."""
    reachable = 1
    entries: list[_Entry] = []
    for row in rows:
        count = remaining[row[0]]
        if count:
            _, rate, _, mask, full = row
            if reachable >= full:  # capacities only fall from here on: nothing better can follow
                break
            while count:
                count -= 1
                grown = reachable | ((reachable << rate) & mask)
                if grown == reachable:  # one more of the same type gives nothing new
                    break
                entries.append((reachable, row))
                reachable = grown
    return reachable, entries


def _take_late(reachable: int, entries: Sequence[_Entry], remaining: bytes) -> bytes:
    """Take the highest load, preferring the clients that entered last."""
    load = reachable.bit_length() - 1
    left = bytearray(remaining)
    for before, (type_index, rate, capacity, _, _) in reversed(entries):
        if rate <= load <= capacity and before >> (load - rate) & 1:
            left[type_index] -= 1
            load -= rate
            if not load:
                break
    return bytes(left)


def _take_early(reachable: int, entries: Sequence[_Entry], remaining: bytes) -> bytes:
    """Take the highest load, preferring the clients that entered first: a table's usual way back."""
    load = reachable.bit_length() - 1
    left = bytearray(remaining)
    for before, (type_index, rate, _, _, _) in reversed(entries):
        if not before >> load & 1:
            left[type_index] -= 1
            load -= rate
            if not load:
                break
    return bytes(left)
