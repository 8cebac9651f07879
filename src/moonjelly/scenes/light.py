"""What light, weather and lamps do to colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.conditions import Conditions

STEPS = 24
"""Light and weather change in so many steps between none and full, so that what depends on them can be kept."""

_DAY = np.asarray([1.0, 1.0, 0.98])
_DUSK = np.asarray([0.66, 0.5, 0.46])
_NIGHT = np.asarray([0.2, 0.22, 0.3])
DUSK_AT = 0.35


@dataclass(frozen=True)
class Light:
    """The light of a scene in whole steps; equal lights give equal pictures.

    What follows from the steps is asked for by every body of every frame, so it is worked out once.
    """

    daylight_step: int
    rain_step: int
    fog_step: int
    snow_step: int

    @staticmethod
    def of(conditions: Conditions) -> Light:
        """The nearest step."""
        values = (conditions.daylight, conditions.rain, conditions.fog, conditions.snow)
        return _light(*(round(value * STEPS) for value in values))

    @cached_property
    def number(self) -> int:
        """Tells it from every other light."""
        steps = (self.daylight_step, self.rain_step, self.fog_step, self.snow_step)
        return sum(step * (STEPS + 1) ** place for place, step in enumerate(steps))

    @property
    def daylight(self) -> float:
        """0 at night, 1 at noon."""
        return self.daylight_step / STEPS

    @property
    def rain(self) -> float:
        """0 to 1."""
        return self.rain_step / STEPS

    @property
    def fog(self) -> float:
        """0 to 1."""
        return self.fog_step / STEPS

    @property
    def snow(self) -> float:
        """0 to 1."""
        return self.snow_step / STEPS

    @cached_property
    def gain(self) -> NDArray[np.float64]:
        """``(3,)`` factor on the colour of everything that does not shine."""
        if self.daylight >= DUSK_AT:
            share = (self.daylight - DUSK_AT) / (1.0 - DUSK_AT)
            gain = _DUSK + (_DAY - _DUSK) * share
        else:
            gain = _NIGHT + (_DUSK - _NIGHT) * (self.daylight / DUSK_AT)
        return np.asarray(gain) * (1.0 - 0.25 * max(self.rain, self.snow, 0.6 * self.fog))

    @cached_property
    def lamps(self) -> float:
        """How strongly lamps show: 0 on a clear day, 1 at night."""
        return min(1.0, max(1.0 - self.daylight / 0.6, 0.35 * max(self.rain, self.fog, self.snow)))

    @cached_property
    def haze(self) -> NDArray[np.float64]:
        """``(3,)`` colour of fog in [0, 1]."""
        return np.asarray([0.78, 0.8, 0.82]) * self.gain

    @cached_property
    def sight_m(self) -> float:
        """Distance at which the haze hides 63 %."""
        thickness = 0.8 / 400.0 + self.fog / 38.0 + self.snow / 160.0 + self.rain / 260.0
        return 1.0 / thickness

    def fog_at(self, distance_m: float) -> float:
        """Share of haze in the picture of something ``distance_m`` away."""
        return 1.0 - math.exp(-distance_m / self.sight_m)

    def through_fog(self, fog: float) -> NDArray[np.float32]:
        """``(4, 4)`` matrix from premultiplied colour and opacity to lit ones behind a share ``fog`` of haze."""
        matrix = np.eye(4, dtype=np.float32)
        matrix[[0, 1, 2], [0, 1, 2]] = self.gain * (1.0 - fog)
        matrix[:3, 3] = self.haze * fog
        return matrix


@lru_cache(maxsize=64)
def _light(daylight_step: int, rain_step: int, fog_step: int, snow_step: int) -> Light:
    return Light(daylight_step, rain_step, fog_step, snow_step)
