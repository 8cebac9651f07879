"""Where things on a flat road appear in the picture.

The ground is a plane; ``z`` runs along the road away from the camera, ``x`` to the right of the road's middle line,
both in metres. The road may bend: its middle lies at ``curvature * z**2 / 2``. A point on the ground at distance ``z``
appears ``focal * height / z`` pixels below the horizon (pinhole camera, horizon line instead of a pitch angle).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Camera:
    """A fixed traffic camera.

    Attributes:
        width: of the picture in pixels.
        height: of the picture in pixels.
        focal: length in pixels.
        horizon: row of the horizon in pixels from the top.
        above_m: height above the ground.
        aside_m: to the right of the road's middle line.
        curvature: of the road in 1/m.
    """

    width: int
    height: int
    focal: float
    horizon: float
    above_m: float
    aside_m: float
    curvature: float

    def scale(self, z: float) -> float:
        """Pixels per metre at distance ``z``."""
        return self.focal / z

    def column(self, x: float, z: float) -> float:
        """Column in pixels of a point ``x`` beside the road's middle line at distance ``z``."""
        return self.width / 2 + self.focal * (x + 0.5 * self.curvature * z * z - self.aside_m) / z

    def row(self, z: float) -> float:
        """Row in pixels of the ground at distance ``z``."""
        return self.horizon + self.focal * self.above_m / z

    def heading(self, z: float) -> float:
        """Angle of the road at ``z`` against the camera's axis, radians, positive to the right."""
        return math.atan(self.curvature * z)

    def bearing(self, x: float, z: float) -> float:
        """Angle under which a point is seen, radians, positive to the right."""
        return math.atan2(x + 0.5 * self.curvature * z * z - self.aside_m, z)

    def depression(self, z: float) -> float:
        """Angle below the horizontal under which the ground at ``z`` is seen, radians."""
        return math.atan2(self.above_m, z)

    def leaves_m(self, tall_m: float) -> float:
        """Distance at which something ``tall_m`` high on the ground has left the picture at the bottom."""
        return max(2.0, self.focal * (self.above_m - tall_m) / (self.height - self.horizon))


def draw_camera(random: np.random.Generator, width: int, height: int, half_road_m: float) -> Camera:
    """A plausible camera for a road of half width ``half_road_m``: on a mast beside it or a bridge above it."""
    focal = width * float(random.uniform(0.9, 1.4))
    horizon = height * float(random.uniform(0.12, 0.32))
    # The nearest visible ground is about 12 to 20 m away, so that nothing fills the whole picture.
    nearest_m = float(random.uniform(12.0, 20.0))
    above_m = min(max(nearest_m * (height - horizon) / focal, 5.0), 12.0)
    aside_m = float(random.uniform(-0.8, 0.8)) * (half_road_m + 1.5)
    curvature = float(random.choice([0.0, 1.0])) * float(random.uniform(-1.0, 1.0)) * 2.5e-3
    return Camera(width, height, focal, horizon, above_m, aside_m, curvature)
