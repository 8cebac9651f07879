"""Pictures of bodies: a few solids seen from one side, drawn far ones first.

A sprite holds premultiplied colour and opacity by daylight, and apart from them the light of its own lamps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.bodies import moves
from moonjelly.scenes.conditions import CLASSES
from moonjelly.scenes.shapes import Ball, Face, Solid, Stroke, corners_of
from moonjelly.scenes.traffic import MOTION_STEPS

YAW_STEPS = 24
"""Views around a body."""
DEPRESSION_STEP = math.radians(5.0)
SUPERSAMPLING = 2


@dataclass(frozen=True, eq=False, slots=True)
class Sprite:
    """A body from one side.

    Attributes:
        base: ``(h, w, 4)`` uint8, premultiplied red, green, blue, and opacity.
        lamps: ``(h, w, 3)`` uint8 or ``None`` when no lamp is in sight.
        origin: column and row of the body's origin.
        px_per_m: scale.
    """

    base: NDArray[np.uint8]
    lamps: NDArray[np.uint8] | None
    origin: tuple[float, float]
    px_per_m: float


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a body: which, at which stride, from where."""

    name: str
    style: int
    motion: int
    yaw: int
    depression: int

    @staticmethod
    def of(name: str, style: int, motion: int, yaw: float, depression: float) -> Look:
        """The nearest of the views that are kept; ``yaw`` 0 shows the back, pi / 2 the right side."""
        kept = motion if name in CLASSES and moves(CLASSES.index(name)) else 0
        turn = round(yaw / (2.0 * math.pi) * YAW_STEPS) % YAW_STEPS
        return Look(name, style, kept % MOTION_STEPS, turn, max(0, round(depression / DEPRESSION_STEP)))


def rasterise(solids: list[Solid], yaw: float, depression: float, side_px: int) -> Sprite:
    """Draw solids seen from a yaw and a depression angle (radians) into about ``side_px`` pixels, far ones first."""
    view = _view(yaw, depression)
    points = [corners_of(solid) @ view.T for solid in solids]
    reach = [_reach_m(solid) for solid in solids]
    low = np.min([corners[:, :2].min(axis=0) - extra for corners, extra in zip(points, reach, strict=True)], axis=0)
    high = np.max([corners[:, :2].max(axis=0) + extra for corners, extra in zip(points, reach, strict=True)], axis=0)
    scale = side_px * SUPERSAMPLING / float(np.max(high - low))
    columns, rows = (math.ceil(float(extent) * scale / SUPERSAMPLING + 2) * SUPERSAMPLING for extent in high - low)
    canvas = np.zeros((rows, columns, 4), np.uint8)
    lamps = np.zeros((rows, columns, 3), np.uint8)
    shift = np.asarray([SUPERSAMPLING, SUPERSAMPLING]) - low * scale
    for number in sorted(range(len(solids)), key=lambda number: _order(solids[number], points[number])):
        solid, corners = solids[number], points[number]
        pixels = np.rint((corners[:, :2] * scale + shift) * 16.0).astype(np.int32)
        _draw(canvas, lamps, solid, corners, pixels, scale)
    size = (columns // SUPERSAMPLING, rows // SUPERSAMPLING)
    small = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
    glow = np.asarray(cv2.resize(lamps, size, interpolation=cv2.INTER_AREA), np.uint8) if lamps.any() else None
    origin = (float(shift[0]) / SUPERSAMPLING, float(shift[1]) / SUPERSAMPLING)
    return Sprite(small, glow, origin, scale / SUPERSAMPLING)


def _view(yaw: float, depression: float) -> NDArray[np.float64]:
    """Rows: picture's right, picture's down, away from the viewer, in the body's axes."""
    sine, cosine, drop, level = math.sin(yaw), math.cos(yaw), math.sin(depression), math.cos(depression)
    right = (sine, cosine, 0.0)
    away = (level * cosine, -level * sine, -drop)
    down = (-drop * cosine, drop * sine, -level)
    return np.asarray([right, down, away])


def _order(solid: Solid, corners: NDArray[np.float64]) -> tuple[bool, float]:
    """Far ones first, and what lies on a face after all faces: it is cut by its own side's direction alone."""
    return isinstance(solid, Face) and solid.decal, -float(corners[:, 2].mean())


def _reach_m(solid: Solid) -> float:
    if isinstance(solid, Ball):
        return solid.radius_m
    return solid.width_m / 2 if isinstance(solid, Stroke) else 0.0


def _draw(
    canvas: NDArray[np.uint8],
    lamps: NDArray[np.uint8],
    solid: Solid,
    corners: NDArray[np.float64],
    pixels: NDArray[np.int32],
    scale: float,
) -> None:
    if isinstance(solid, Face):
        right, down, away = _normal(corners)
        if away >= 0.0 and not solid.both_sides:
            return
        norm = math.sqrt(right * right + down * down + away * away) or 1.0
        colour = _shaded(solid.colour, -down / norm, right / norm)
        cv2.fillConvexPoly(canvas, pixels, colour, shift=4)
        shine = tuple(255.0 * part for part in solid.lamp) if solid.lamp else (0.0, 0.0, 0.0)
        cv2.fillConvexPoly(lamps, pixels, shine, shift=4)
        return
    colour = _shaded(solid.colour, 0.35, 0.2)
    if isinstance(solid, Stroke):
        width = max(1, round(solid.width_m * scale))
        cv2.polylines(canvas, [pixels], False, colour, width, shift=4)
        cv2.polylines(lamps, [pixels], False, (0.0, 0.0, 0.0), width, shift=4)
        return
    centre = (int(pixels[0, 0]), int(pixels[0, 1]))
    radius = max(16, round(solid.radius_m * scale * 16.0))
    cv2.circle(canvas, centre, radius, colour, -1, shift=4)
    cv2.circle(lamps, centre, radius, (0.0, 0.0, 0.0), -1, shift=4)


def _normal(corners: NDArray[np.float64]) -> tuple[float, float, float]:
    """Outward normal in the axes of the view, which are left-handed: hence the second edge times the first."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners[:3].tolist()
    ux, uy, uz, vx, vy, vz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
    return vy * uz - vz * uy, vz * ux - vx * uz, vx * uy - vy * ux


def _shaded(colour: tuple[float, float, float], up: float, right: float) -> tuple[float, float, float, float]:
    """Light from above and a little from the right, on a face whose normal points ``up`` and ``right``."""
    light = 255.0 * min(1.0, 0.68 + 0.34 * max(0.0, up) + 0.1 * right)
    return (colour[0] * light, colour[1] * light, colour[2] * light, 255.0)
