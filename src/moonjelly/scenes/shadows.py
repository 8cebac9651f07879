"""What bodies do to the ground: contact shadows, and the light of their headlamps."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.light import Light
from moonjelly.scenes.stamps import Spot

FOOTPRINTS_M: dict[str, tuple[float, float]] = {
    "person": (0.5, 0.6),
    "car": (4.3, 1.9),
    "truck": (7.0, 2.5),
    "bus": (10.5, 2.6),
    "bicycle": (1.7, 0.5),
    "motorcycle": (2.0, 0.6),
    "tree": (2.6, 2.6),
    "bush": (1.8, 1.8),
    "pole": (0.4, 0.4),
    "sign": (0.4, 0.4),
}
"""Length and width on the ground."""
DARKNESS_STEPS = 16
_DISC_SIDE = 96
_BEAM_M = (5.0, 2.6)
_REMEMBERED = 4000
_KEPT_UP_TO_PX = 320


def darkness_of(light: Light) -> int:
    """How dark shadows are in ``light``, in :data:`DARKNESS_STEPS`."""
    strength = 0.3 + 0.35 * light.daylight * (1.0 - max(light.rain, light.fog, light.snow))
    return round(strength * DARKNESS_STEPS)


class Shadows:
    """Soft discs of darkness and of light, kept by size."""

    def __init__(self) -> None:
        reach = np.linspace(-1.0, 1.0, _DISC_SIDE, dtype=np.float32)
        distance = np.sqrt(reach[:, None] ** 2 + reach[None, :] ** 2)
        self._disc = np.clip((1.0 - distance) / 0.45, 0.0, 1.0)
        self._kept: dict[tuple[int, int, int], NDArray[np.uint8]] = {}

    def cast(self, picture: NDArray[np.uint8], name: str, yaw: float, spot: Spot, darkness: int) -> None:
        """Darken the ground under a body by so many of :data:`DARKNESS_STEPS`."""
        long_m, wide_m = FOOTPRINTS_M[name]
        sine, cosine = abs(math.sin(yaw)), abs(math.cos(yaw))
        half_x = 0.62 * (long_m * sine + wide_m * cosine) * spot.px_per_m
        half_y = 0.62 * (long_m * cosine + wide_m * sine) * spot.px_per_m * math.sin(spot.depression)
        if half_y < 1.0:
            return
        window = _window(picture, (spot.column, spot.row), half_x, half_y)
        if window is None:
            return
        under, part, size = window
        shade = self._soft(size, part, darkness, 255.0, -255.0 * darkness / DARKNESS_STEPS)
        cv2.multiply(under, shade, dst=under, scale=1.0 / 255.0)

    def shine(self, picture: NDArray[np.uint8], spot: Spot, light: Light) -> None:
        """Brighten the ground where headlamps meet it."""
        half_x = 0.5 * _BEAM_M[0] * spot.px_per_m
        half_y = max(1.0, _BEAM_M[1] * spot.px_per_m * math.sin(spot.depression))
        window = _window(picture, (spot.column, spot.row), half_x, half_y)
        if window is None:
            return
        under, part, size = window
        step = 32 + round(10.0 * light.lamps * (1.0 - light.fog_at(spot.distance_m)))
        cv2.add(under, self._soft(size, part, step, 0.0, 6.0 * (step - 32)), dst=under)

    def _soft(
        self, size: tuple[int, int], part: tuple[slice, slice], step: int, base: float, gain: float
    ) -> NDArray[np.uint8]:
        """``base + gain * disc`` in the ``part`` of a disc of that size; ``step`` tells the gains apart."""
        if max(size) > _KEPT_UP_TO_PX:
            # Right in front of the camera a disc is many times the frame: draw what is seen, and keep nothing.
            return _three(base + gain * self._cut(size, part))
        key = (*size, step)
        disc = self._kept.get(key)
        if disc is None:
            if len(self._kept) >= _REMEMBERED:
                self._kept.clear()
            disc = _three(base + gain * cv2.resize(self._disc, size, interpolation=cv2.INTER_AREA))
            self._kept[key] = disc
        return disc[part]

    def _cut(self, size: tuple[int, int], part: tuple[slice, slice]) -> NDArray[np.float32]:
        """Part of the disc at that size."""
        rows, columns = part
        across, down = _DISC_SIDE / size[0], _DISC_SIDE / size[1]
        back = np.asarray(
            [[across, 0, (columns.start + 0.5) * across - 0.5], [0, down, (rows.start + 0.5) * down - 0.5]]
        )
        seen = (columns.stop - columns.start, rows.stop - rows.start)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self._disc, back, seen, flags=how), np.float32)


def _three(soft: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(soft.astype(np.uint8), cv2.COLOR_GRAY2RGB), np.uint8)


def _window(
    picture: NDArray[np.uint8], at: tuple[float, float], half_x: float, half_y: float
) -> tuple[NDArray[np.uint8], tuple[slice, slice], tuple[int, int]] | None:
    """The part of the picture that a disc of these half axes covers, the part of the disc in it, and its size."""
    # Two-pixel steps: discs of nearly equal size are one disc.
    columns, rows = 2 * math.ceil(half_x), 2 * math.ceil(half_y)
    left, top = round(at[0]) - columns // 2, round(at[1]) - rows // 2
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + columns, width), min(top + rows, height)
    if x0 >= x1 or y0 >= y1:
        return None
    part = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    return picture[y0:y1, x0:x1], part, (columns, rows)
