"""Light, weather and class mix of a scene, and how they drift over time."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from moonjelly.errors import ConfigError

CLASSES: tuple[str, ...] = ("person", "car", "truck", "bus", "bicycle", "motorcycle")
"""Class names by index; the order of Cityscapes' movable classes as Ekya uses them (Ekya's dataset code)."""

DEFAULT_MIX: tuple[float, ...] = (0.30, 0.38, 0.11, 0.06, 0.08, 0.07)
"""Weights of :data:`CLASSES` on an ordinary day in town."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a scene is like at one instant.

    Attributes:
        daylight: 1 at noon, about 0.35 at dusk, 0 at night.
        rain: 0 (dry) to 1 (downpour).
        fog: 0 (clear) to 1 (about 40 m of sight).
        snow: 0 (none) to 1 (snowfall, white ground).
        density: of the traffic, 1 is ordinary, at most 2.5.
        mix: weights of :data:`CLASSES`, not negative, not all zero.

    Raises:
        ConfigError: a value is outside its range.
    """

    daylight: float = 1.0
    rain: float = 0.0
    fog: float = 0.0
    snow: float = 0.0
    density: float = 1.0
    mix: tuple[float, ...] = DEFAULT_MIX

    def __post_init__(self) -> None:
        for name in ("daylight", "rain", "fog", "snow"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"scene conditions: {name} is {value}; it must be in [0, 1]")
        if not 0.0 <= self.density <= 2.5:
            raise ConfigError(f"scene conditions: density is {self.density}; it must be in [0, 2.5]")
        if len(self.mix) != len(CLASSES):
            raise ConfigError(f"scene conditions: mix has {len(self.mix)} weights; give one for each of {CLASSES}")
        if not all(0.0 <= weight < math.inf for weight in self.mix) or sum(self.mix) <= 0.0:
            raise ConfigError(f"scene conditions: mix {self.mix} needs weights that are not negative and not all zero")

    @property
    def shares(self) -> tuple[float, ...]:
        """``mix`` scaled to a sum of 1."""
        total = sum(self.mix)
        return tuple(weight / total for weight in self.mix)

    def towards(self, other: Conditions, share: float) -> Conditions:
        """Linear interpolation: ``self`` at ``share`` 0, ``other`` at 1; class mixes as shares."""
        blended = {
            column.name: (1.0 - share) * getattr(self, column.name) + share * getattr(other, column.name)
            for column in fields(self)
            if column.name != "mix"
        }
        mix = tuple((1.0 - share) * a + share * b for a, b in zip(self.shares, other.shares, strict=True))
        return Conditions(mix=mix, **blended)


@dataclass(frozen=True, slots=True)
class Keyframe:
    """The conditions that hold at one instant, in seconds of scene time."""

    at_s: float
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class Drift:
    """A schedule of conditions: linear between keyframes, constant before the first and after the last.

    Raises:
        ConfigError: no keyframe, or their instants do not increase.
    """

    keyframes: tuple[Keyframe, ...]

    def __post_init__(self) -> None:
        if not self.keyframes:
            raise ConfigError("scene drift: there is no keyframe; give at least one")
        instants = [keyframe.at_s for keyframe in self.keyframes]
        if any(late <= early for early, late in pairwise(instants)):
            raise ConfigError(f"scene drift: keyframes are at {instants} s; their instants must increase")

    @staticmethod
    def steady(conditions: Conditions) -> Drift:
        """The same conditions for ever."""
        return Drift((Keyframe(0.0, conditions),))

    def at(self, instant_s: float) -> Conditions:
        """The conditions at ``instant_s`` seconds of scene time."""
        after = bisect_right(self.keyframes, instant_s, key=lambda keyframe: keyframe.at_s)
        if after == 0:
            return self.keyframes[0].conditions
        if after == len(self.keyframes):
            return self.keyframes[-1].conditions
        early, late = self.keyframes[after - 1], self.keyframes[after]
        return early.conditions.towards(late.conditions, (instant_s - early.at_s) / (late.at_s - early.at_s))


def draw_conditions(random: np.random.Generator) -> Conditions:
    """Conditions as a day among many has them: mostly day and dry, a quarter at night, each weather now and then."""
    daylight = float(random.choice([1.0, 0.8, 0.55, 0.35, 0.15, 0.0], p=[0.34, 0.16, 0.12, 0.13, 0.1, 0.15]))
    weather = random.choice(4, p=[0.58, 0.18, 0.12, 0.12])
    strength = float(random.uniform(0.3, 1.0))
    rain, fog, snow = (strength if weather == kind else 0.0 for kind in (1, 2, 3))
    mix = tuple(float(weight) for weight in np.asarray(DEFAULT_MIX) * random.uniform(0.5, 1.6, len(CLASSES)))
    return Conditions(daylight, rain, fog, snow, float(random.uniform(0.6, 1.5)), mix)
