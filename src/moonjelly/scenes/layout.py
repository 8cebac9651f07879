"""The road: its cross-section, its side street and the belts on which everything moves.

A belt is a lane, a cycle lane, one direction of a walkway or a row of parked vehicles: a chain of equal cells that
moves past as a whole. At most one object sits in a cell, so that nothing on a belt ever collides, whatever its speed
does, and where anything is at any time is a formula: frames can be drawn in any order.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from moonjelly.scenes.camera import Camera

LANE_M = 3.3
CYCLE_M = 1.6
WALK_M = 3.2
PARKING_M = 2.3
ROAD_FAR_M = 90.0
CYCLE_FAR_M = 60.0
WALK_FAR_M = 50.0
SIDE_MARGIN_M = 7.0


class BeltKind(enum.Enum):
    """What moves on a belt."""

    ROAD = "road"
    CYCLE = "cycle"
    WALK = "walk"
    PARKED = "parked"


CELL_M = {BeltKind.ROAD: 15.0, BeltKind.CYCLE: 8.0, BeltKind.WALK: 3.0, BeltKind.PARKED: 9.5}
"""Length of a cell: the longest object of the kind and a gap."""


@dataclass(frozen=True, slots=True)
class Belt:
    """One chain of cells.

    Attributes:
        kind: what moves on it.
        across: moves sideways at distance ``at_m`` instead of along the road at ``at_m`` beside its middle.
        forward: away from the camera, or to the right when ``across``.
        at_m: lateral position, or distance when ``across``.
        start_m: where objects appear, metres of ``z`` (of ``x`` when ``across``).
        length_m: of the visible stretch.
        speed_mps: mean speed.
        wave: relative depth of the speed's slow wave (a red light ahead), in [0, 1).
        period_s: of that wave.
        phase: of that wave, radians.
    """

    kind: BeltKind
    across: bool
    forward: bool
    at_m: float
    start_m: float
    length_m: float
    speed_mps: float
    wave: float
    period_s: float
    phase: float

    @property
    def cell_m(self) -> float:
        """Length of a cell."""
        return CELL_M[self.kind]

    def travelled_m(self, instant_s: float) -> float:
        """How far the belt has moved since time 0 (plus a constant)."""
        turn = 2.0 * math.pi / self.period_s
        return self.speed_mps * (instant_s + self.wave / turn * math.sin(turn * instant_s + self.phase))

    def instant_s(self, travelled_m: float) -> float:
        """The inverse of :meth:`travelled_m`, to a millisecond."""
        if self.speed_mps == 0.0:
            return 0.0
        guess = travelled_m / self.speed_mps
        early, late = guess - self.period_s, guess + self.period_s
        while late - early > 1e-3:
            middle = 0.5 * (early + late)
            if self.travelled_m(middle) < travelled_m:
                early = middle
            else:
                late = middle
        return 0.5 * (early + late)

    def place(self, along_m: float) -> tuple[float, float]:
        """``(x, z)`` of a point ``along_m`` metres after the belt's start."""
        moving = self.start_m + along_m if self.forward else self.start_m - along_m
        return (moving, self.at_m) if self.across else (self.at_m, moving)


@dataclass(frozen=True, slots=True)
class Layout:
    """A road.

    Attributes:
        name: one of :data:`moonjelly.scenes.LAYOUTS`.
        lanes: in both directions together, even.
        parking: whether vehicles are parked on both sides.
        side_street_m: distance of the side street's middle, or ``None``.
        crosswalk_m: distance of the crosswalk's middle, or ``None``.
    """

    name: str
    lanes: int
    parking: bool
    side_street_m: float | None
    crosswalk_m: float | None

    @property
    def half_lanes_m(self) -> float:
        """From the middle to the outer edge of the outer lane."""
        return self.lanes * LANE_M / 2

    @property
    def half_road_m(self) -> float:
        """From the middle to the curb."""
        return self.half_lanes_m + CYCLE_M + (PARKING_M if self.parking else 0.0)

    @property
    def half_all_m(self) -> float:
        """From the middle to the outer edge of the walkway."""
        return self.half_road_m + WALK_M


def draw_layout(random: np.random.Generator, name: str) -> Layout:
    """A road of the kind ``name``."""
    if name == "avenue":
        return Layout(name, int(random.choice([4, 6])), False, None, None)
    if name == "street":
        return Layout(name, 2, True, None, None)
    crosswalk_m = float(random.uniform(16.0, 22.0))
    return Layout(name, int(random.choice([2, 4])), False, crosswalk_m + float(random.uniform(9.0, 14.0)), crosswalk_m)


def draw_belts(random: np.random.Generator, layout: Layout, camera: Camera) -> tuple[Belt, ...]:
    """The belts of a road, seen by ``camera``; traffic keeps to the right."""
    belts: list[Belt] = []
    fast = layout.name == "avenue"
    for lane in range(layout.lanes):
        x = -layout.half_lanes_m + (lane + 0.5) * LANE_M
        speed = float(random.uniform(8.0, 15.0) if fast else random.uniform(4.5, 9.0))
        belts.append(_along(random, camera, BeltKind.ROAD, x, x > 0, ROAD_FAR_M, speed, 3.4))
    for side in (-1.0, 1.0):
        cycle_x = side * (layout.half_lanes_m + CYCLE_M / 2)
        speed = float(random.uniform(3.5, 6.0))
        belts.append(_along(random, camera, BeltKind.CYCLE, cycle_x, side > 0, CYCLE_FAR_M, speed, 2.0))
        for row, forward in ((0.3, True), (0.75, False)):
            walk_x = side * (layout.half_road_m + row * WALK_M)
            speed = float(random.uniform(1.0, 1.7))
            belts.append(_along(random, camera, BeltKind.WALK, walk_x, forward, WALK_FAR_M, speed, 2.0))
        if layout.parking:
            parked_x = side * (layout.half_road_m - PARKING_M / 2)
            belts.append(_along(random, camera, BeltKind.PARKED, parked_x, side > 0, ROAD_FAR_M, 0.0, 3.0))
    if layout.side_street_m is not None:
        for offset, forward in ((-LANE_M / 2, True), (LANE_M / 2, False)):
            speed = float(random.uniform(4.0, 8.0))
            belts.append(_across(random, camera, BeltKind.ROAD, layout.side_street_m + offset, forward, speed))
    if layout.crosswalk_m is not None:
        for offset, forward in ((-0.8, True), (0.8, False)):
            speed = float(random.uniform(1.0, 1.6))
            belts.append(_across(random, camera, BeltKind.WALK, layout.crosswalk_m + offset, forward, speed))
    return tuple(belts)


def _along(
    random: np.random.Generator,
    camera: Camera,
    kind: BeltKind,
    x: float,
    forward: bool,
    far_m: float,
    speed_mps: float,
    tall_m: float,
) -> Belt:
    near_m = max(camera.leaves_m(tall_m) - 2.0, 3.0)
    return _belt(random, kind, False, forward, x, near_m if forward else far_m, far_m - near_m, speed_mps)


def _across(
    random: np.random.Generator, camera: Camera, kind: BeltKind, z: float, forward: bool, speed_mps: float
) -> Belt:
    middle = camera.aside_m - 0.5 * camera.curvature * z * z
    half = 0.5 * camera.width / camera.scale(z) + SIDE_MARGIN_M
    return _belt(random, kind, True, forward, z, middle - half if forward else middle + half, 2 * half, speed_mps)


def _belt(
    random: np.random.Generator,
    kind: BeltKind,
    across: bool,
    forward: bool,
    at_m: float,
    start_m: float,
    length_m: float,
    speed_mps: float,
) -> Belt:
    wave = float(random.uniform(0.1, 0.9)) if kind is BeltKind.ROAD else float(random.uniform(0.0, 0.2))
    period_s, phase = float(random.uniform(20.0, 45.0)), float(random.uniform(0.0, 2.0 * math.pi))
    return Belt(kind, across, forward, at_m, start_m, length_m, speed_mps, wave, period_s, phase)
