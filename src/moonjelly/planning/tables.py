"""A problem compiled for search: client types, device classes and lanes, in integer units of load.

* A **device class** is a set of interchangeable devices: one kind, one speed.
* A **lane** is one (device class, group, variant). Lanes are numbered by decreasing accuracy, so that a sorted list
  of lanes is also the order in which devices are filled.
* A **client type** is a set of interchangeable clients: one group, one rate, and on every lane the same largest batch
  that their budget allows.

Rates are rounded up and capacities down to the unit, so whatever fits in units fits in truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.planning.head_room import limit_fps
from moonjelly.planning.problem import Client, Problem
from moonjelly.profiles import Profile

_MAX_COUNT = 255  # a state of the search is a byte per type
_RATE_SLACK = 1e-10  # in units: what rounding of fps / unit may lose
_CAPACITY_SLACK = 1e-6  # in units: kept free, so that _RATE_SLACK of many clients never adds up to a violation


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Interchangeable devices.

    Attributes:
        kind: profile kind.
        speed: factor on the profile.
        positions: indices into ``problem.devices``.
    """

    kind: str
    speed: float
    positions: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Lane:
    """One (device class, group, variant).

    Attributes:
        device_class: index into :attr:`Tables.classes`.
        group: model group.
        variant: index into the group's profile.
        accuracy: of the variant.
        max_batch: per type, the largest batch that its budget allows here; 0 when none.
        capacity: ``(B + 1,)``; load in units that batches up to ``b`` can carry, non-decreasing; ``capacity[0] == 0``.
        limit: ``(B + 1,)``; the same as a real number, not rounded down.
    """

    device_class: int
    group: str
    variant: int
    accuracy: float
    max_batch: tuple[int, ...]
    capacity: tuple[int, ...]
    limit: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Tables:
    """The compiled problem. Clients that no lane can serve alone are in no type.

    Attributes:
        problem: what it was compiled from.
        unit: frames/s per unit of load.
        classes: device classes.
        lanes: by decreasing accuracy.
        lanes_of: per class, its lanes in increasing index.
        rate: per type, load in units, rounded up.
        true_rate: per type, the same as a real number.
        members: per type, indices into ``problem.clients``.
        flexibility: per type, the sum of its largest batches over all lanes: how easily it finds another place.
        lane_index: (device class, group, variant) to lane.
        class_of: position of a device to its class.
    """

    problem: Problem
    unit: float
    classes: tuple[DeviceClass, ...]
    lanes: tuple[Lane, ...]
    lanes_of: tuple[tuple[int, ...], ...]
    rate: tuple[int, ...]
    true_rate: tuple[float, ...]
    members: tuple[tuple[int, ...], ...]
    flexibility: tuple[int, ...]
    lane_index: Mapping[tuple[int, str, int], int]
    class_of: Mapping[int, int]

    @property
    def full(self) -> bytes:
        """The state in which no client is placed yet: how many of each type remain."""
        return bytes(len(members) for members in self.members)

    @property
    def on_grid(self) -> bool:
        """All rates are multiples of the unit."""
        return all(abs(rate - true) <= _RATE_SLACK for rate, true in zip(self.rate, self.true_rate, strict=True))

    def lane_at(self, position: int, group: str, variant: int) -> int | None:
        """The lane of a variant on the device at ``position``; ``None`` where there is none."""
        return self.lane_index.get((self.class_of[position], group, variant))

    def load(self, remaining: bytes) -> int:
        """Units of load that the clients of a state offer."""
        return sum(map(int.__mul__, remaining, self.rate))


def compile_tables(problem: Problem, *, merge: bool = True) -> Tables:
    """Compile ``problem``.

    Args:
        problem: what to plan.
        merge: put interchangeable clients into one type; otherwise every client is a type of its own, in the
            problem's order.
    """
    classes = _classes(problem)
    limits = _Limits(problem, classes)
    kept = [position for position, client in enumerate(problem.clients) if client.fps < limits.highest(client.group)]
    unit = _unit([problem.clients[position].fps for position in kept], limits.highest())
    drafts = _draft_lanes(problem, classes, limits, unit)
    types = _types(problem, kept, drafts, unit, merge)
    columns = np.array([row for _, row, _ in types], np.int64).reshape(len(types), len(drafts)).T
    lanes = tuple(
        Lane(
            draft.device_class,
            draft.group,
            draft.variant,
            draft.accuracy,
            tuple(column.tolist()),
            draft.capacity,
            draft.limit,
        )
        for draft, column in zip(drafts, columns, strict=True)
    )
    return Tables(
        problem=problem,
        unit=unit,
        classes=classes,
        lanes=lanes,
        lanes_of=_per_class(lanes, len(classes)),
        rate=tuple(rate for rate, _, _ in types),
        true_rate=tuple(problem.clients[members[0]].fps / unit for _, _, members in types),
        members=tuple(members for _, _, members in types),
        flexibility=tuple(columns.sum(axis=0).tolist()),
        lane_index={(lane.device_class, lane.group, lane.variant): index for index, lane in enumerate(lanes)},
        class_of={position: index for index, one in enumerate(classes) for position in one.positions},
    )


def _per_class(lanes: tuple[Lane, ...], classes: int) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in range(classes)]
    for index, lane in enumerate(lanes):
        found[lane.device_class].append(index)
    return tuple(map(tuple, found))


def _classes(problem: Problem) -> tuple[DeviceClass, ...]:
    positions: dict[tuple[str, float], list[int]] = {}
    for position, device in enumerate(problem.devices):
        positions.setdefault((device.kind, device.speed), []).append(position)
    return tuple(DeviceClass(kind, speed, tuple(where)) for (kind, speed), where in positions.items())


class _Limits:
    """Frames/s that a device must not be offered, ``(M, B)`` per class and group."""

    def __init__(self, problem: Problem, classes: tuple[DeviceClass, ...]) -> None:
        self.groups = sorted({client.group for client in problem.clients})
        self.of: dict[tuple[int, str], NDArray[np.float64]] = {}
        for index, one in enumerate(classes):
            for group in self.groups:
                profile = problem.profiles.get((one.kind, group))
                if profile is not None:
                    batches = range(1, profile.max_batch + 1)
                    rows = [
                        [limit_fps(profile, variant, batch, one.speed, problem.rho) for batch in batches]
                        for variant in range(len(profile.variants))
                    ]
                    self.of[index, group] = np.array(rows, np.float64)

    def highest(self, group: str | None = None) -> float:
        return max((float(one.max()) for (_, name), one in self.of.items() if group in (None, name)), default=0.0)


def _latencies(profile: Profile, speed: float) -> NDArray[np.float64]:
    return np.array(profile.latency_ms, np.float64) / speed


def _unit(rates: list[float], highest: float) -> float:
    """The rates' common divisor where that keeps bitsets short, else a power of two near 1/1000 of a device."""
    if not rates:
        return 1.0
    span = min(highest, math.fsum(rates))
    thousandths = [round(rate * 1000.0) for rate in rates] if max(rates) < 1e12 else [0]
    if all(abs(whole - rate * 1000.0) < 1e-6 for whole, rate in zip(thousandths, rates, strict=False)):
        divisor = math.gcd(*thousandths) / 1000.0
        if divisor > 0.0 and span / divisor <= 1024:
            return divisor
    bits = 1024 if len(rates) < 100 else 512
    return float(2.0 ** max(math.ceil(math.log2(max(span, 1e-300) / bits)), -990))


@dataclass(frozen=True, eq=False, slots=True)
class _LaneDraft:
    device_class: int
    group: str
    variant: int
    accuracy: float
    needed_ms: NDArray[np.float64]
    capacity: tuple[int, ...]
    limit: tuple[float, ...]


def _draft_lanes(problem: Problem, classes: tuple[DeviceClass, ...], limits: _Limits, unit: float) -> list[_LaneDraft]:
    offered = {
        group: math.ceil(math.fsum(client.fps for client in problem.clients if client.group == group) / unit)
        + len(problem.clients)
        for group in limits.groups
    }
    drafts = []
    for (index, group), limit in limits.of.items():
        profile = problem.profiles[classes[index].kind, group]
        needed = problem.latency_factor * _latencies(profile, classes[index].speed)
        carried = np.maximum.accumulate(np.minimum(limit / unit, offered[group]), axis=1)
        carried = np.pad(carried, ((0, 0), (1, 0)))
        whole = np.maximum(np.ceil(carried - _CAPACITY_SLACK).astype(np.int64) - 1, 0)
        drafts += [
            _LaneDraft(
                device_class=index,
                group=group,
                variant=variant,
                accuracy=profile.accuracy[variant],
                needed_ms=needed[variant],
                capacity=tuple(whole[variant].tolist()),
                limit=tuple(carried[variant].tolist()),
            )
            for variant in range(len(profile.variants))
        ]
    drafts.sort(key=lambda draft: (-draft.accuracy, draft.device_class, draft.group, -draft.variant))
    return drafts


def _types(
    problem: Problem, kept: list[int], drafts: list[_LaneDraft], unit: float, merge: bool
) -> list[tuple[int, list[int], tuple[int, ...]]]:
    """(rate in units, largest batch per lane, members) of every type that some lane can serve."""
    found: dict[tuple[float, str, bytes, int], tuple[int, list[int], list[int]]] = {}
    for group in sorted({problem.clients[position].group for position in kept}):
        positions = [position for position in kept if problem.clients[position].group == group]
        rows = _batch_limits([problem.clients[position] for position in positions], drafts, group)
        caps = _alone_capacity(rows, drafts)
        for position, row, cap in zip(positions, rows, caps.tolist(), strict=True):
            fps = problem.clients[position].fps
            rate = max(math.ceil(fps / unit - _RATE_SLACK), 1)
            if rate <= cap:
                key = (fps, group, row.tobytes(), -1 if merge else position)
                if key not in found:
                    found[key] = (rate, row.tolist(), [])
                found[key][2].append(position)
    return [
        (rate, row, tuple(members[start : start + _MAX_COUNT]))
        for rate, row, members in found.values()
        for start in range(0, len(members), _MAX_COUNT)
    ]


def _batch_limits(clients: list[Client], drafts: list[_LaneDraft], group: str) -> NDArray[np.uint16]:
    """``(clients, lanes)``: the largest batch whose latency each client's budget covers ``latency_factor`` times."""
    budgets = np.array([client.budget_ms for client in clients], np.float64)
    rows = np.zeros((len(clients), len(drafts)), np.uint16)
    for column, draft in enumerate(drafts):
        if draft.group == group:
            rows[:, column] = np.searchsorted(draft.needed_ms, budgets[:, draft.variant], side="right")
    return rows


def _alone_capacity(rows: NDArray[np.uint16], drafts: list[_LaneDraft]) -> NDArray[np.int64]:
    """``(clients,)``: the largest load in units that any lane could carry within each client's budget."""
    best = np.zeros(len(rows), np.int64)
    for column, draft in enumerate(drafts):
        best = np.maximum(best, np.array(draft.capacity, np.int64)[rows[:, column]])
    return best
