"""The place itself: ground, road, markings, sky and houses, once as colours by daylight, then lit for an instant.

Every ground pixel is traced back to its place on the road, so markings and seams keep the road's perspective exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.camera import Camera
from moonjelly.scenes.layout import CYCLE_M, LANE_M, Layout
from moonjelly.scenes.light import Light

Plane = NDArray[np.float32]

HOUSES_M = 160.0
SKY_M = 100_000.0
TEXTURE_SIDE = 256
_GROUNDS = np.asarray([[0.27, 0.36, 0.19], [0.4, 0.37, 0.28], [0.45, 0.45, 0.44], [0.33, 0.4, 0.24]])


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A place without its traffic.

    Attributes:
        colours: ``(h, w, 3)`` float32 in [0, 1], by daylight.
        distance_m: ``(h, w)`` float32.
        cover: ``(h, w)`` float32, how much snow stays there.
        road: ``(h, w)`` float32, 1 on asphalt.
        lamps: ``(h, w, 3)`` float32, light of street lamps and windows.
    """

    colours: Plane
    distance_m: Plane
    cover: Plane
    road: Plane
    lamps: Plane

    def lit(self, light: Light) -> NDArray[np.uint8]:
        """The picture in ``light``, ``(h, w, 3)`` uint8."""
        white = np.asarray([0.88, 0.9, 0.93], np.float32)
        snow = (light.snow * self.cover)[:, :, None]
        dark = (1.0 - light.rain * (0.3 * self.road + 0.12 * self.cover))[:, :, None]
        colours = (self.colours * (1.0 - snow) + white * snow) * dark
        grey = max(light.rain, light.snow, light.fog)
        sky = (self.distance_m >= SKY_M)[:, :, None]
        colours = np.where(sky, colours * (1.0 - grey) + grey * np.float32(0.72), colours)
        picture = colours * light.gain.astype(np.float32) + self.lamps * np.float32(
            light.lamps * (1.0 - light.daylight)
        )
        # The sky is bright by itself: haze hides it only as far as weather goes, not by its distance.
        hidden = 1.0 - np.exp(-np.minimum(self.distance_m, 2.0 * HOUSES_M) / np.float32(light.sight_m))
        hidden = np.where(sky[:, :, 0], hidden * np.float32(grey), hidden)[:, :, None]
        picture = picture * (1.0 - hidden) + light.haze.astype(np.float32) * hidden
        return np.clip(picture * 255.0, 0.0, 255.0).astype(np.uint8)


def draw_place(random: np.random.Generator, camera: Camera, layout: Layout, margin: int) -> Place:
    """A place for ``layout`` as ``camera`` sees it, ``margin`` pixels larger on every side than the frame."""
    rows = np.arange(-margin, camera.height + margin, dtype=np.float32)[:, None]
    columns = np.arange(-margin, camera.width + margin, dtype=np.float32)[None, :]
    below = np.maximum(rows - np.float32(camera.horizon), np.float32(1e-3))
    z = np.minimum(np.float32(camera.focal * camera.above_m) / below, np.float32(900.0))
    x = (columns - camera.width / 2) * z / camera.focal + camera.aside_m - 0.5 * camera.curvature * z * z
    z = np.broadcast_to(z, x.shape)
    is_ground = np.broadcast_to(rows > camera.horizon + 0.5, x.shape)
    ground = _Ground(random, camera, x.astype(np.float32), z.astype(np.float32))
    ground.paint(layout)
    sky, windows, houses = _sky(random, camera, rows, columns)
    seen = is_ground[:, :, None]
    distance = np.where(is_ground, z, np.where(houses, np.float32(HOUSES_M), np.float32(SKY_M)))
    return Place(
        colours=np.where(seen, ground.colours, sky).astype(np.float32),
        distance_m=distance.astype(np.float32),
        cover=np.where(is_ground, ground.cover, np.where(houses, np.float32(0.2), np.float32(0.0))),
        road=np.where(is_ground, ground.road, np.float32(0.0)),
        lamps=np.where(seen, _street_lamps(camera, layout, ground), windows).astype(np.float32),
    )


class _Ground:
    """The ground while it is painted, layer over layer."""

    def __init__(self, random: np.random.Generator, camera: Camera, x: Plane, z: Plane) -> None:
        self.random = random
        self.x, self.z = x, z
        self.wide_m = z / np.float32(camera.focal)
        """Width of a pixel on the ground."""
        self.long_m = z * z / np.float32(camera.focal * camera.above_m)
        """Length of a pixel on the ground."""
        texture = random.normal(0.0, 1.0, (TEXTURE_SIDE, TEXTURE_SIDE)).astype(np.float32)
        self._texture = (
            texture + 2.0 * cv2.GaussianBlur(texture, (0, 0), 3.0) + 6.0 * cv2.GaussianBlur(texture, (0, 0), 12.0)
        )
        self.colours = np.empty((*x.shape, 3), np.float32)
        self.colours[:] = _GROUNDS[int(random.integers(len(_GROUNDS)))] * random.uniform(0.8, 1.15)
        self.colours *= 1.0 + 0.13 * self._grain(0.35)[:, :, None]
        self.cover = np.full(x.shape, 0.95, np.float32)
        self.road = np.zeros(x.shape, np.float32)

    def paint(self, layout: Layout) -> None:
        """The road, from the ground up."""
        asphalt = float(self.random.uniform(0.26, 0.42))
        if layout.side_street_m is not None:
            self._asphalt(self._band(self.z - layout.side_street_m, LANE_M + 0.6, self.long_m), asphalt)
        walk = self._band(self.x, layout.half_all_m, self.wide_m)
        self._layer(walk, np.asarray([0.56, 0.54, 0.52]) * self.random.uniform(0.85, 1.1), 0.05, 0.8)
        seams = self._dashes(self.z, 1.5, 0.06, self.long_m) * walk * np.clip(18.0 / self.z, 0.0, 1.0)
        self._layer(seams, np.asarray([0.42, 0.41, 0.4]), 0.0, 0.8)
        curb = self._band(self.x, layout.half_road_m + 0.2, self.wide_m)
        self._layer(curb, np.asarray([0.66, 0.66, 0.65]), 0.03, 0.7)
        self._asphalt(self._band(self.x, layout.half_road_m, self.wide_m), asphalt)
        if layout.side_street_m is not None:
            self._asphalt(self._band(self.z - layout.side_street_m, LANE_M + 0.2, self.long_m), asphalt)
        self._markings(layout)

    def _markings(self, layout: Layout) -> None:
        colour = np.asarray([0.86, 0.86, 0.83]) * self.random.uniform(0.8, 1.0)
        edge = layout.half_lanes_m
        if self.random.random() < 0.5:
            lane = self._band(np.abs(self.x) - np.float32(edge + CYCLE_M / 2), CYCLE_M / 2, self.wide_m)
            self._layer(lane * 0.8, np.asarray([0.5, 0.24, 0.2]), 0.04, 0.5)
        open_road = np.ones_like(self.x)
        if layout.side_street_m is not None:
            open_road = 1.0 - self._band(self.z - layout.side_street_m, LANE_M + 0.2, self.long_m)
        for number in range(-layout.lanes // 2, layout.lanes // 2 + 1):
            line = self._band(self.x - number * LANE_M, 0.08, self.wide_m)
            if 0 < abs(number) < layout.lanes // 2:
                line = line * self._dashes(self.z, 9.0, 4.0, self.long_m)
            self._layer(line * open_road * 0.9, colour, 0.0, 0.5)
        if layout.crosswalk_m is not None:
            field = self._band(self.z - layout.crosswalk_m, 1.9, self.long_m)
            field = field * self._band(self.x, layout.half_road_m - 0.3, self.wide_m)
            self._layer(field * self._dashes(self.x, 1.1, 0.55, self.wide_m), colour, 0.0, 0.5)

    def _asphalt(self, where: Plane, shade: float) -> None:
        self._layer(where, np.full(3, shade), 0.07, 0.55)
        self.road = np.maximum(self.road, where)

    def _layer(self, where: Plane, colour: NDArray[np.float64], grain: float, cover: float) -> None:
        share = where[:, :, None]
        painted = colour.astype(np.float32)[None, None, :]
        if grain:
            painted = painted * (1.0 + grain * self._grain(0.2)[:, :, None])
        self.colours = self.colours * (1.0 - share) + painted * share
        self.cover = self.cover * (1.0 - where) + np.float32(cover) * where

    def _grain(self, cell_m: float) -> Plane:
        """Texture of the ground with grains of ``cell_m``, smoothed out where a pixel is larger than that."""
        across = np.mod(self.x / cell_m, TEXTURE_SIDE)
        along = np.mod(self.z / cell_m, TEXTURE_SIDE)
        fade = np.clip(2.0 * cell_m / self.long_m, 0.15, 1.0)
        grains = cv2.remap(self._texture, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(grains * fade, np.float32)

    @staticmethod
    def _band(offset: Plane, half_m: float, pixel_m: Plane) -> Plane:
        """Share of each pixel within ``half_m`` of ``offset`` 0."""
        reach = (half_m - np.abs(offset)) / np.maximum(pixel_m, 1e-4) + 0.5
        return np.asarray(np.clip(reach, 0.0, np.minimum(1.0, 2.0 * half_m / pixel_m)), np.float32)

    @staticmethod
    def _dashes(offset: Plane, period_m: float, dash_m: float, pixel_m: Plane) -> Plane:
        """Share of each pixel in the dashes of a broken line; its mean where the pixel is longer than the period."""
        inside = (dash_m / 2 - np.abs(np.mod(offset, period_m) - period_m / 2)) / np.maximum(pixel_m, 1e-4) + 0.5
        blurred = np.clip(pixel_m / period_m, 0.0, 1.0)
        return np.asarray(np.clip(inside, 0.0, 1.0) * (1.0 - blurred) + dash_m / period_m * blurred, np.float32)


def _sky(
    random: np.random.Generator, camera: Camera, rows: Plane, columns: Plane
) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    """Colours, lit windows and where the houses are, for the whole picture."""
    height, width = rows.shape[0], columns.shape[1]
    share = np.clip(rows / np.float32(max(camera.horizon, 1.0)), 0.0, 1.0)[:, :, None]
    blue = np.asarray([0.45, 0.62, 0.85], np.float32) * np.float32(random.uniform(0.85, 1.1))
    pale = np.asarray([0.82, 0.86, 0.9], np.float32)
    colours = np.broadcast_to(blue * (1.0 - share) + pale * share, (height, width, 3)).astype(np.float32).copy()
    windows = np.zeros((height, width, 3), np.float32)
    houses = np.zeros((height, width), bool)
    ground_row = int(np.searchsorted(rows[:, 0], camera.horizon + 1.0))
    left = 0
    while left < width:
        across = max(4, int(width * random.uniform(0.04, 0.14)))
        if random.random() < 0.8:
            tall = int(camera.horizon * random.uniform(0.15, 0.9))
            _house(random, colours, windows, (max(0, ground_row - tall), ground_row), (left, min(width, left + across)))
            houses[max(0, ground_row - tall) : ground_row, left : left + across] = True
        left += across
    return colours, windows, houses


def _house(
    random: np.random.Generator, colours: Plane, windows: Plane, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    top, bottom = rows
    left, right = columns
    wall = np.asarray([0.5, 0.46, 0.42]) * random.uniform(0.5, 1.4) + random.uniform(-0.06, 0.06, 3)
    colours[top:bottom, left:right] = np.clip(wall, 0.05, 0.95)
    pitch = max(5, (right - left) // max(2, int(random.integers(3, 7))))
    size = max(2, pitch // 2)
    for row in range(top + 2, bottom - size, pitch):
        for column in range(left + 2, right - size, pitch):
            pane = (slice(row, row + size), slice(column, column + size))
            colours[pane] = np.clip(wall * 0.55, 0.03, 0.9)
            if random.random() < 0.35:
                windows[pane] = np.asarray([0.75, 0.62, 0.35]) * random.uniform(0.5, 1.0)


def _street_lamps(camera: Camera, layout: Layout, ground: _Ground) -> Plane:
    """Pools of light on the ground, alternating between the sides."""
    pools = np.zeros(ground.x.shape, np.float32)
    for number in range(8):
        side = -1.0 if number % 2 else 1.0
        across = (ground.x - side * layout.half_road_m * 0.8) / 5.5
        along = (ground.z - (10.0 + 15.0 * number)) / 8.0
        pools += np.exp(-(across * across + along * along))
    warm = np.asarray([0.95, 0.78, 0.5], np.float32)
    return ground.colours * warm * np.float32(1.1) * np.minimum(pools, 1.2)[:, :, None]
