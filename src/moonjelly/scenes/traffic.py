"""Who is on the road at an instant: the cells of every belt and the objects in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moonjelly.scenes.camera import Camera
from moonjelly.scenes.conditions import CLASSES, DEFAULT_MIX, Conditions, Drift
from moonjelly.scenes.layout import Belt, BeltKind

STYLES = 7
"""Different looks of each class in one scene."""
CELLS_PER_BELT = 1 << 24
MOTION_STEPS = 6
"""Pictures of one stride of a walker or one turn of the pedals."""
CELLS_REMEMBERED = 4096

PLAY_M = {BeltKind.ROAD: 3.0, BeltKind.CYCLE: 5.5, BeltKind.WALK: 2.0, BeltKind.PARKED: 1.0}
"""How far from its cell's beginning an object sits at most: less than the cell and the longest object leave."""

_CLASSES_ON = {
    BeltKind.ROAD: tuple(CLASSES.index(name) for name in ("car", "truck", "bus", "motorcycle")),
    BeltKind.CYCLE: (CLASSES.index("bicycle"),),
    BeltKind.WALK: (CLASSES.index("person"),),
    BeltKind.PARKED: (CLASSES.index("car"), CLASSES.index("truck")),
}
_OCCUPANCY = {BeltKind.ROAD: 0.42, BeltKind.CYCLE: 0.2, BeltKind.WALK: 0.12, BeltKind.PARKED: 0.45}
"""Share of occupied cells at density 1 and the default mix."""
_STRIDES_PER_M = {BeltKind.WALK: 0.7, BeltKind.CYCLE: 0.35, BeltKind.ROAD: 0.0, BeltKind.PARKED: 0.0}


@dataclass(frozen=True, slots=True)
class Resident:
    """What sits in a cell for as long as the cell is in sight.

    Attributes:
        track: its number.
        kind: index into :data:`CLASSES`.
        style: which look of its class.
        belt_m: position on the belt.
        sway_m: how far it strays from the belt's middle.
        sway_phase: radians.
    """

    track: int
    kind: int
    style: int
    belt_m: float
    sway_m: float
    sway_phase: float


class Actor(NamedTuple):
    """Something that stands on the ground at an instant.

    Attributes:
        track: its number; -1 for scenery.
        name: of its class, or of a piece of scenery.
        kind: index into :data:`CLASSES`; ``None`` for scenery, which is not labelled.
        style: which look of its class.
        motion: step of its stride, in ``range(MOTION_STEPS)``.
        x: metres beside the road's middle.
        z: metres along the road.
        heading: radians against the camera's axis, 0 away from it, positive to the right.
        lamps: whether it has lamps that may be lit.
    """

    track: int
    name: str
    kind: int | None
    style: int
    motion: int
    x: float
    z: float
    heading: float
    lamps: bool

    @staticmethod
    def scenery(name: str, style: int, x: float, z: float, heading: float) -> Actor:
        """A piece of scenery."""
        return Actor(-1, name, None, style, 0, x, z, heading, False)


class Traffic:
    """The residents of all cells, drawn when their cell comes into sight from the conditions at that instant."""

    def __init__(self, seed: int, belts: tuple[Belt, ...], camera: Camera, drift: Drift) -> None:
        self._seed = seed
        self._belts = belts
        self._camera = camera
        self._drift = drift
        self._residents: dict[tuple[int, int], Resident | None] = {}
        self._windows: dict[int, tuple[int, int, list[Resident]]] = {}

    def actors(self, instant_s: float) -> list[Actor]:
        """Everything on the road at ``instant_s``, belt by belt."""
        if len(self._residents) > CELLS_REMEMBERED:
            self._residents.clear()
        actors: list[Actor] = []
        for number, belt in enumerate(self._belts):
            travelled_m = belt.travelled_m(instant_s)
            strides_per_m = _STRIDES_PER_M[belt.kind]
            for resident in self._around(number, belt, travelled_m):
                along_m = travelled_m - resident.belt_m
                if 0.0 <= along_m <= belt.length_m:
                    actors.append(self._actor(belt, resident, along_m, strides_per_m))
        return actors

    def _around(self, number: int, belt: Belt, travelled_m: float) -> list[Resident]:
        """The residents of the cells that touch the visible stretch; those cells change every few frames only."""
        cell_m = belt.cell_m
        first = math.floor((travelled_m - belt.length_m) / cell_m)
        last = math.floor(travelled_m / cell_m)
        known = self._windows.get(number)
        if known is None or known[0] != first or known[1] != last:
            cells = (self._resident(number, belt, cell) for cell in range(first, last + 1))
            known = (first, last, [one for one in cells if one is not None])
            self._windows[number] = known
        return known[2]

    def _resident(self, number: int, belt: Belt, cell: int) -> Resident | None:
        key = (number, cell)
        if key not in self._residents:
            self._residents[key] = self._draw(number, belt, cell)
        return self._residents[key]

    def _draw(self, number: int, belt: Belt, cell: int) -> Resident | None:
        random = np.random.default_rng((self._seed, number, cell + CELLS_PER_BELT // 2))
        present, jitter, choice, style, sway, phase = random.random(6)
        belt_m = cell * belt.cell_m + jitter * PLAY_M[belt.kind]
        conditions = self._drift.at(belt.instant_s(belt_m))
        shares = conditions.shares
        if present >= occupancy(belt.kind, conditions):
            return None
        allowed = _CLASSES_ON[belt.kind]
        limits = np.cumsum([shares[kind] for kind in allowed])
        kind = allowed[min(int(np.searchsorted(limits, choice * limits[-1], side="right")), len(allowed) - 1)]
        return Resident(
            track=number * CELLS_PER_BELT + cell + CELLS_PER_BELT // 2,
            kind=kind,
            style=int(style * STYLES),
            belt_m=float(belt_m),
            sway_m=0.25 * float(sway),
            sway_phase=2.0 * math.pi * float(phase),
        )

    def _actor(self, belt: Belt, resident: Resident, along_m: float, strides_per_m: float) -> Actor:
        x, z = belt.place(along_m)
        moving = belt.kind is not BeltKind.PARKED
        sway_m = resident.sway_m * math.sin(resident.sway_phase + 0.12 * along_m) if moving else 0.0
        if belt.across:
            heading = 0.5 * math.pi if belt.forward else -0.5 * math.pi
            z += sway_m
        else:
            heading = self._camera.heading(z) + (0.0 if belt.forward else math.pi)
            x += sway_m
        strides = strides_per_m * along_m + resident.sway_phase
        motion = int(strides * MOTION_STEPS) % MOTION_STEPS if strides_per_m else 0
        name = CLASSES[resident.kind]
        lamps = moving and name not in ("person", "bicycle")
        return Actor(resident.track, name, resident.kind, resident.style, motion, x, z, heading, lamps)


def occupancy(kind: BeltKind, conditions: Conditions) -> float:
    """Share of a belt's cells that are occupied: so the whole scene follows the class mix, not each belt alone."""
    shares = conditions.shares
    ordinary = sum(DEFAULT_MIX[index] for index in _CLASSES_ON[kind])
    present = sum(shares[index] for index in _CLASSES_ON[kind])
    return min(0.95, conditions.density * _OCCUPANCY[kind] * present / ordinary)
