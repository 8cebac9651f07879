"""The solids that bodies are made of: flat faces, strokes and balls, in metres.

Axes of a body: ``a`` forward, ``b`` to its right, ``c`` up; the origin is on the ground below its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Face:
    """A convex polygon with an outer side.

    Attributes:
        corners: counter-clockwise round the outward normal.
        colour: by daylight.
        lamp: the light that it gives.
        both_sides: seen from inside as well.
        decal: lies on another face (a window, a wheel, a lamp) and is drawn after it.
    """

    corners: tuple[Point, ...]
    colour: Colour
    lamp: Colour | None = None
    both_sides: bool = False
    decal: bool = False


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line of ``width_m``."""

    corners: tuple[Point, ...]
    colour: Colour
    width_m: float


@dataclass(frozen=True, slots=True)
class Ball:
    """A sphere."""

    centre: Point
    colour: Colour
    radius_m: float


Solid = Face | Stroke | Ball


def block(
    a: tuple[float, float],
    b: tuple[float, float],
    c: tuple[float, float],
    colour: Colour,
    *,
    top: Colour | None = None,
    top_a: tuple[float, float] | None = None,
    top_b: tuple[float, float] | None = None,
) -> list[Solid]:
    """A box over the given ranges; ``top_a`` and ``top_b`` narrow its upper side, ``top`` colours that side."""
    (a0, a1), (b0, b1), (c0, c1) = a, b, c
    (ta0, ta1), (tb0, tb1) = top_a or a, top_b or b
    low = [(a0, b0, c0), (a1, b0, c0), (a1, b1, c0), (a0, b1, c0)]
    high = [(ta0, tb0, c1), (ta1, tb0, c1), (ta1, tb1, c1), (ta0, tb1, c1)]
    sides = [Face((low[i], low[(i + 1) % 4], high[(i + 1) % 4], high[i]), colour) for i in range(4)]
    return [*sides, Face(tuple(high), top or colour)]


def wheel(a: float, b: float, radius_m: float, colour: Colour) -> Solid:
    """The outer side of a wheel on the ground, on the body's side at ``b``."""
    circle = _circle(a, b, radius_m, radius_m, 10)
    return Face(circle[::-1] if b > 0 else circle, colour, decal=True)


def disc(a: float, radius_m: float, colour: Colour) -> Solid:
    """A wheel without a width in the body's middle plane."""
    return Face(_circle(a, 0.0, radius_m, radius_m, 10), colour, both_sides=True)


def ring(a: float, radius_m: float, colour: Colour, width_m: float) -> Solid:
    """A tyre on the ground in the body's middle plane."""
    circle = _circle(a, 0.0, radius_m, radius_m, 12)
    return Stroke((*circle, circle[0]), colour, width_m)


def plate(
    a: float, b: tuple[float, float], c: tuple[float, float], colour: Colour, lamp: Colour | None = None
) -> Solid:
    """An upright rectangle across the body at ``a``, facing forward when ``a`` is positive, else backward."""
    (b0, b1), (c0, c1) = (b[1], b[0]) if a < 0 else b, c
    return Face(((a, b0, c0), (a, b1, c0), (a, b1, c1), (a, b0, c1)), colour, lamp, decal=True)


def pane(a: tuple[float, float], b: float, c: tuple[float, float], colour: Colour) -> Solid:
    """An upright rectangle along the body at ``b``, facing outward."""
    (a0, a1), (c0, c1) = (a[1], a[0]) if b > 0 else a, c
    return Face(((a0, b, c0), (a1, b, c0), (a1, b, c1), (a0, b, c1)), colour, decal=True)


def corners_of(solid: Solid) -> NDArray[np.float64]:
    """``(k, 3)`` points of a solid."""
    return np.asarray([solid.centre] if isinstance(solid, Ball) else solid.corners)


def _circle(a: float, b: float, c: float, radius_m: float, steps: int) -> tuple[Point, ...]:
    angles = (2.0 * math.pi * step / steps for step in range(steps))
    return tuple((a + radius_m * math.cos(angle), b, c + radius_m * math.sin(angle)) for angle in angles)
