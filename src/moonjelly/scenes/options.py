"""What may be chosen about a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moonjelly.errors import ConfigError
from moonjelly.scenes.conditions import Drift

LAYOUTS: tuple[str, ...] = ("avenue", "street", "junction")
"""A wide road with four to six lanes; two lanes with parked cars; a road with a side street and a crosswalk."""


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """Options of a scene; what is ``None`` is drawn from the seed.

    Attributes:
        width: of the frames in pixels, at least 64.
        height: of the frames in pixels, at least 64.
        fps: frames per second of scene time.
        layout: one of :data:`LAYOUTS`.
        drift: conditions over time.
        noise: factor on the sensor's noise; 0 is none.
        shake: factor on the camera's shake (about one pixel at 640x360); 0 is none.

    Raises:
        ConfigError: a value is impossible.
    """

    width: int = 640
    height: int = 360
    fps: float = 25.0
    layout: Literal["avenue", "street", "junction"] | None = None
    drift: Drift | None = None
    noise: float = 1.0
    shake: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 64 or self.height < 64 or self.width > 7680 or self.height > 7680:
            raise ConfigError(f"scene: frames of {self.width}x{self.height} pixels; each side must be in [64, 7680]")
        if not 0.0 < self.fps <= 1000.0:
            raise ConfigError(f"scene: fps is {self.fps}; it must be in (0, 1000]")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ConfigError(f"scene: layout '{self.layout}' is not known; choose from {', '.join(LAYOUTS)}")
        if not 0.0 <= self.noise <= 4.0 or not 0.0 <= self.shake <= 4.0:
            raise ConfigError(f"scene: noise {self.noise} and shake {self.shake} must be in [0, 4]")
