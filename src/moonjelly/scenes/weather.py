"""What lies between the scene and its picture: rain, snowflakes and the sensor's noise.

Each is a sheet drawn once and looked at through a window that moves with the frame: falling drops and flakes keep
their way from frame to frame, noise jumps.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.light import Light

NOISE_PLAY = 64
"""The noise sheet is larger than the frame by so many pixels."""
SHEETS_REMEMBERED = 4
NOISES_REMEMBERED = 2
_RAIN_FALL = 2.7
"""Frame heights per second."""
_SNOW_FALL = 0.28


class Weather:
    """Lays weather and noise over frames of one size."""

    def __init__(self, seed: int, width: int, height: int, noise: float) -> None:
        self._seed = seed
        self._width, self._height = width, height
        self._noise = noise
        self._sheets: dict[tuple[str, int], NDArray[np.uint8]] = {}
        self._noises: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def lay_over(self, picture: NDArray[np.uint8], light: Light, index: int, instant_s: float) -> None:
        """Change ``picture`` in place for frame ``index`` at ``instant_s``."""
        if light.rain_step:
            self._fall(picture, "rain", light.rain_step, light, instant_s * _RAIN_FALL)
        if light.snow_step:
            self._fall(picture, "snow", light.snow_step, light, instant_s * _SNOW_FALL)
        if self._noise > 0.0:
            # Sensors amplify in the dark: from about 1.5 grey levels at noon to 7 at night.
            level = round((1.5 + 5.5 * (1.0 - light.daylight)) * self._noise * 2.0)
            top, left = np.random.default_rng((self._seed, 11, index)).integers(0, NOISE_PLAY, 2).tolist()
            window = (slice(top, top + self._height), slice(left, left + self._width))
            # Where one of the two is not 0 the other is: as one sheet of signed bytes it would take several times
            # as long.
            more, less = self._noise_at(level)
            cv2.add(picture, more[window], dst=picture)
            cv2.subtract(picture, less[window], dst=picture)

    def _fall(self, picture: NDArray[np.uint8], kind: str, step: int, light: Light, fallen: float) -> None:
        level = step * 10 + round(9.0 * (0.35 + 0.65 * light.daylight))
        sheet = self._sheet(kind, level)
        top = self._height - 1 - int(fallen * self._height) % self._height
        cv2.add(picture, sheet[top : top + self._height], dst=picture)

    def _sheet(self, kind: str, level: int) -> NDArray[np.uint8]:
        known = self._sheets.get((kind, level))
        if known is None:
            if len(self._sheets) >= SHEETS_REMEMBERED:
                self._sheets.clear()
            known = self._draw(kind, level)
            self._sheets[(kind, level)] = known
        return known

    def _noise_at(self, level: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """What noise adds and what it takes away."""
        known = self._noises.get(level)
        if known is None:
            if len(self._noises) >= NOISES_REMEMBERED:
                self._noises.clear()
            shape = (self._height + NOISE_PLAY, self._width + NOISE_PLAY, 3)
            noise = np.clip(self._random("noise").normal(0.0, level / 2.0, shape), -127, 127).astype(np.int8)
            known = np.maximum(noise, 0).astype(np.uint8), np.maximum(-noise, 0).astype(np.uint8)
            self._noises[level] = known
        return known

    def _random(self, kind: str) -> np.random.Generator:
        return np.random.default_rng((self._seed, sum(map(ord, kind))))

    def _draw(self, kind: str, level: int) -> NDArray[np.uint8]:
        random = self._random(kind)
        strength, brightness = level // 10, level % 10 / 9.0
        sheet = np.zeros((self._height, self._width), np.uint8)
        unit = self._height / 360.0
        for _ in range(round((14 if kind == "rain" else 16) * strength)):
            x, y, size = random.random(3)
            at = (int(x * self._width), int(y * self._height))
            if kind == "rain":
                long = round((8.0 + 16.0 * size) * unit)
                self._wrapped_line(sheet, at, (round(0.12 * long), long), round(70.0 * brightness * (0.5 + 0.5 * size)))
            else:
                radius = max(1, round((0.6 + 1.9 * size * size) * unit))
                cv2.circle(sheet, at, radius, round(200.0 * brightness), -1, cv2.LINE_AA)
        return np.repeat(np.concatenate([sheet, sheet])[:, :, None], 3, axis=2)

    def _wrapped_line(self, sheet: NDArray[np.uint8], at: tuple[int, int], way: tuple[int, int], grey: int) -> None:
        for shift in (0, -self._height):
            start, end = (at[0], at[1] + shift), (at[0] + way[0], at[1] + way[1] + shift)
            cv2.line(sheet, start, end, float(grey), 1, cv2.LINE_AA)
