"""Pictures of bodies: a few solids seen from one side, drawn far ones first.

A sprite holds premultiplied colour and opacity by daylight, and apart from them the light of its own lamps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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
_Corners = list[list[float]]
_DARK = (0.0, 0.0, 0.0)
_STRIDING = tuple(name for kind, name in enumerate(CLASSES) if moves(kind))


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


class Look(NamedTuple):
    """What is seen of a body: which, at which stride, from where."""

    name: str
    style: int
    motion: int
    yaw: int
    depression: int

    @staticmethod
    def of(name: str, style: int, motion: int, yaw: float, depression: float) -> Look:
        """The nearest of the views that are kept; ``yaw`` 0 shows the back, pi / 2 the right side."""
        kept = motion if name in _STRIDING else 0
        turn = round(yaw / (2.0 * math.pi) * YAW_STEPS) % YAW_STEPS
        return Look(name, style, kept % MOTION_STEPS, turn, max(0, round(depression / DEPRESSION_STEP)))


@dataclass(frozen=True, eq=False, slots=True)
class Figure:
    """The solids of a body, ready to be seen from any side.

    Attributes:
        solids: in the order in which they were built.
        corners: ``(n, 3)`` of all solids, one after the other.
        begins: of each solid in ``corners``.
        counts: corners of each solid.
        reach_m: ``(n, 1)`` how far a solid reaches beyond each of its corners.
    """

    solids: tuple[Solid, ...]
    corners: NDArray[np.float64]
    begins: NDArray[np.int64]
    counts: NDArray[np.int64]
    reach_m: NDArray[np.float64]

    @staticmethod
    def of(solids: list[Solid]) -> Figure:
        """Stack what is the same from every side."""
        corners = [corners_of(solid) for solid in solids]
        counts = np.asarray([len(one) for one in corners], np.int64)
        reach = np.repeat([_reach_m(solid) for solid in solids], counts)[:, None]
        return Figure(tuple(solids), np.concatenate(corners), np.cumsum(counts) - counts, counts, reach)


def rasterise(figure: Figure, yaw: float, depression: float, side_px: int) -> Sprite:
    """Draw a body seen from a yaw and a depression angle (radians) into about ``side_px`` pixels, far solids first."""
    points = figure.corners @ _view(yaw, depression).T
    low = (points[:, :2] - figure.reach_m).min(axis=0)
    extent = (points[:, :2] + figure.reach_m).max(axis=0) - low
    scale = side_px * SUPERSAMPLING / float(extent.max())
    columns, rows = (math.ceil(side * scale / SUPERSAMPLING + 2) * SUPERSAMPLING for side in extent.tolist())
    shift = np.asarray([SUPERSAMPLING, SUPERSAMPLING]) - low * scale
    pixels = np.rint((points[:, :2] * scale + shift) * 16.0).astype(np.int32)
    drawing = _Drawing(rows, columns, scale)
    depths = (np.add.reduceat(points[:, 2], figure.begins) / figure.counts).tolist()
    begins, counts, corners = figure.begins.tolist(), figure.counts.tolist(), points.tolist()
    for number in sorted(range(len(begins)), key=lambda number: _order(figure.solids[number], depths[number])):
        begin, end = begins[number], begins[number] + counts[number]
        drawing.add(figure.solids[number], corners[begin:end], pixels[begin:end])
    size = (columns // SUPERSAMPLING, rows // SUPERSAMPLING)
    origin = (float(shift[0]) / SUPERSAMPLING, float(shift[1]) / SUPERSAMPLING)
    return Sprite(_smaller(drawing.base, size), drawing.shining(size), origin, scale / SUPERSAMPLING)


def _smaller(canvas: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)


def _view(yaw: float, depression: float) -> NDArray[np.float64]:
    """Rows: picture's right, picture's down, away from the viewer, in the body's axes."""
    sine, cosine, drop, level = math.sin(yaw), math.cos(yaw), math.sin(depression), math.cos(depression)
    right = (sine, cosine, 0.0)
    away = (level * cosine, -level * sine, -drop)
    down = (-drop * cosine, drop * sine, -level)
    return np.asarray([right, down, away])


def _order(solid: Solid, depth: float) -> tuple[bool, float]:
    """Far ones first, and what lies on a face after all faces: it is cut by its own side's direction alone."""
    return isinstance(solid, Face) and solid.decal, -depth


def _reach_m(solid: Solid) -> float:
    if isinstance(solid, Ball):
        return solid.radius_m
    return solid.width_m / 2 if isinstance(solid, Stroke) else 0.0


class _Drawing:
    """A sprite while it is drawn: its solids, and the light of those lamps that no later solid covers."""

    def __init__(self, rows: int, columns: int, scale: float) -> None:
        self.base = np.zeros((rows, columns, 4), np.uint8)
        self._scale = scale
        self._lamps: NDArray[np.uint8] | None = None

    def shining(self, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The lamps at ``size``; ``None`` when none is in sight."""
        return _smaller(self._lamps, size) if self._lamps is not None and self._lamps.any() else None

    def add(self, solid: Solid, corners: _Corners, pixels: NDArray[np.int32]) -> None:
        """Draw one more solid, nearer than those before it; ``pixels`` are in sixteenths."""
        if isinstance(solid, Face):
            self._add_face(solid, corners, pixels)
            return
        colour = _shaded(solid.colour, 0.35, 0.2)
        if isinstance(solid, Stroke):
            width = max(1, round(solid.width_m * self._scale))
            cv2.polylines(self.base, [pixels], False, colour, width, shift=4)
            if self._lamps is not None:
                cv2.polylines(self._lamps, [pixels], False, _DARK, width, shift=4)
            return
        centre = (int(pixels[0, 0]), int(pixels[0, 1]))
        radius = max(16, round(solid.radius_m * self._scale * 16.0))
        cv2.circle(self.base, centre, radius, colour, -1, shift=4)
        if self._lamps is not None:
            cv2.circle(self._lamps, centre, radius, _DARK, -1, shift=4)

    def _add_face(self, face: Face, corners: _Corners, pixels: NDArray[np.int32]) -> None:
        right, down, away = _normal(corners)
        if away >= 0.0 and not face.both_sides:
            return
        norm = math.sqrt(right * right + down * down + away * away) or 1.0
        cv2.fillConvexPoly(self.base, pixels, _shaded(face.colour, -down / norm, right / norm), shift=4)
        if face.lamp is not None and self._lamps is None:
            self._lamps = np.zeros((*self.base.shape[:2], 3), np.uint8)
        if self._lamps is not None:
            shine = tuple(255.0 * part for part in face.lamp) if face.lamp else _DARK
            cv2.fillConvexPoly(self._lamps, pixels, shine, shift=4)


def _normal(corners: _Corners) -> tuple[float, float, float]:
    """Outward normal in the axes of the view, which are left-handed: hence the second edge times the first."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners[:3]
    ux, uy, uz, vx, vy, vz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
    return vy * uz - vz * uy, vz * ux - vx * uz, vx * uy - vy * ux


def _shaded(colour: tuple[float, float, float], up: float, right: float) -> tuple[float, float, float, float]:
    """Light from above and a little from the right, on a face whose normal points ``up`` and ``right``."""
    light = 255.0 * min(1.0, 0.68 + 0.34 * max(0.0, up) + 0.1 * right)
    return (colour[0] * light, colour[1] * light, colour[2] * light, 255.0)
