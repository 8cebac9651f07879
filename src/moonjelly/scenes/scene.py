"""Puts a scene together: place, traffic, light and weather into frames and their truth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import ConfigError
from moonjelly.scenes.background import draw_place
from moonjelly.scenes.bodies import SCENERY
from moonjelly.scenes.camera import draw_camera
from moonjelly.scenes.canvas import MOST_BODIES, Owners, Placed, put
from moonjelly.scenes.conditions import Conditions, Drift, draw_conditions
from moonjelly.scenes.labels import FrameLabels
from moonjelly.scenes.layout import Layout, draw_belts, draw_layout
from moonjelly.scenes.light import Light
from moonjelly.scenes.options import LAYOUTS, SceneOptions
from moonjelly.scenes.shadows import FOOTPRINTS_M, Shadows, darkness_of
from moonjelly.scenes.sprites import Look
from moonjelly.scenes.stamps import Spot, StampBook
from moonjelly.scenes.traffic import Actor, Traffic
from moonjelly.scenes.weather import Weather

LIT_FROM = 0.25
"""How strongly lamps must show to be switched on."""
PLACES_REMEMBERED = 3


class Scene:
    """A traffic scene: frames by index, the same for the same seed and options.

    Frames may be asked for in any order; asked in order, each takes about 3 ms at 640x360. Not for use by several
    threads at once: give each its own ``Scene`` of the same seed.

    Raises:
        ConfigError: the seed is negative.
    """

    def __init__(self, seed: int, options: SceneOptions | None = None) -> None:
        if seed < 0:
            raise ConfigError(f"scene: seed {seed} is negative; choose a whole number from 0")
        self.seed = seed
        self.options = options or SceneOptions()
        width, height = self.options.width, self.options.height
        random = np.random.default_rng((seed, 1))
        layout = draw_layout(random, self.options.layout or LAYOUTS[int(random.integers(len(LAYOUTS)))])
        steady = Drift.steady(draw_conditions(random))
        self.drift = self.options.drift or steady
        self._camera = draw_camera(random, width, height, layout.half_road_m)
        self._traffic = Traffic(seed, draw_belts(random, layout, self._camera), self._camera, self.drift)
        self._scenery = _draw_scenery(random, layout)
        self._unit = width / 640.0
        self._margin = math.ceil(2.5 * self._unit * self.options.shake) + 1
        self._place = draw_place(random, self._camera, layout, self._margin)
        self._lit_places: dict[Light, NDArray[np.uint8]] = {}
        self._stamps = StampBook(seed, width, height)
        self._shadows = Shadows()
        self._weather = Weather(seed, width, height, self.options.noise)

    def conditions(self, index: int) -> Conditions:
        """Light, weather and class mix at frame ``index``."""
        return self.drift.at(index / self.options.fps)

    def frame(self, index: int, hidden: frozenset[int] = frozenset()) -> tuple[NDArray[np.uint8], FrameLabels]:
        """Draw one frame.

        Args:
            index: of the frame, from 0.
            hidden: tracks whose bodies are left out (their shadows stay): the difference to the whole frame lies
                within their boxes.

        Returns:
            ``(height, width, 3)`` uint8 RGB and its truth.
        """
        owners = Owners(self.options.height, self.options.width)
        picture, placed = self._draw(index, hidden, owners)
        return picture, _labels(owners, placed, (self.options.width, self.options.height))

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The picture of :meth:`frame` without its truth, which costs a part of the time."""
        return self._draw(index, frozenset(), None)[0]

    def _draw(
        self, index: int, hidden: frozenset[int], owners: Owners | None
    ) -> tuple[NDArray[np.uint8], list[tuple[Actor, Placed]]]:
        instant_s = index / self.options.fps
        light = Light.of(self.drift.at(instant_s))
        shift = self._shake(instant_s)
        picture = self._lit_place(light, shift)
        actors = sorted([*self._scenery, *self._traffic.actors(instant_s)], key=lambda actor: -actor.z)
        things = [
            (actor, self._spot(actor.x, actor.z, shift), actor.heading - self._camera.bearing(actor.x, actor.z))
            for actor in actors
        ]
        self._touch_ground(picture, things, light, shift)
        bodies = [thing for thing in things if thing[0].track not in hidden][-MOST_BODIES:]
        placed = self._put_bodies(picture, bodies, light, owners)
        self._weather.lay_over(picture, light, index, instant_s)
        return picture, placed

    def _lit_place(self, light: Light, shift: tuple[int, int]) -> NDArray[np.uint8]:
        lit = self._lit_places.get(light)
        if lit is None:
            if len(self._lit_places) >= PLACES_REMEMBERED:
                self._lit_places.clear()
            lit = self._place.lit(light)
            self._lit_places[light] = lit
        left, top = self._margin - shift[0], self._margin - shift[1]
        return lit[top : top + self.options.height, left : left + self.options.width].copy()

    def _shake(self, instant_s: float) -> tuple[int, int]:
        """A slow and a fast swing of the mast each way, in whole pixels."""
        reach = self._unit * self.options.shake
        phase = float(self.seed % 97)
        across = 1.1 * math.sin(1.7 * instant_s + phase) + 0.7 * math.sin(9.1 * instant_s + 2.0 * phase)
        down = 0.7 * math.sin(2.3 * instant_s + 3.0 * phase) + 0.6 * math.sin(11.3 * instant_s + phase)
        return round(across * reach), round(down * reach)

    def _spot(self, x: float, z: float, shift: tuple[int, int]) -> Spot:
        camera = self._camera
        column, row = camera.column(x, z) + shift[0], camera.row(z) + shift[1]
        return Spot(column, row, camera.scale(z), z, camera.depression(z))

    def _touch_ground(
        self, picture: NDArray[np.uint8], things: list[_Thing], light: Light, shift: tuple[int, int]
    ) -> None:
        darkness = darkness_of(light)
        for actor, spot, yaw in things:
            self._shadows.cast(picture, actor.name, yaw, spot, darkness)
        if light.lamps < LIT_FROM:
            return
        for actor, _, _ in things:
            if actor.lamps:
                ahead_m = 0.5 * FOOTPRINTS_M[actor.name][0] + 2.5
                x, z = actor.x + ahead_m * math.sin(actor.heading), actor.z + ahead_m * math.cos(actor.heading)
                if z > 3.0:
                    self._shadows.shine(picture, self._spot(x, z, shift), light)

    def _put_bodies(
        self, picture: NDArray[np.uint8], bodies: list[_Thing], light: Light, owners: Owners | None
    ) -> list[tuple[Actor, Placed]]:
        lit = light.lamps >= LIT_FROM
        placed: list[tuple[Actor, Placed]] = []
        for body, spot, yaw in bodies:
            look = Look.of(body.name, body.style, body.motion, yaw, spot.depression)
            stamp = self._stamps.stamp(look, spot, light, lit and body.lamps)
            if stamp is None:
                continue
            window = put(picture, stamp, round(spot.column) + stamp.left, round(spot.row) + stamp.top)
            if window is None or owners is None:
                continue
            place = owners.claim(stamp, window)
            if place is not None and body.kind is not None:
                placed.append((body, place))
        return placed


_Thing = tuple[Actor, Spot, float]
"""Something in the scene, where it is in the frame, and the angle from which it is seen."""


def _labels(owners: Owners, placed: list[tuple[Actor, Placed]], size: tuple[int, int]) -> FrameLabels:
    width, height = size
    seen = [(body, place, owners.visible(place)) for body, place in placed]
    seen = [one for one in seen if one[2] > 0.0]
    boxes = np.asarray([place.box for _, place, _ in seen], np.float64).reshape(-1, 4)
    return FrameLabels(
        boxes=(boxes / (width, height, width, height)).astype(np.float32),
        classes=np.asarray([body.kind for body, _, _ in seen], np.int32),
        tracks=np.asarray([body.track for body, _, _ in seen], np.int64),
        visible=np.asarray([share for _, _, share in seen], np.float32),
        distance_m=np.asarray([body.z for body, _, _ in seen], np.float32),
    )


def _draw_scenery(random: np.random.Generator, layout: Layout) -> list[Actor]:
    """Trees behind the walkways, poles and signs at the curb; some of them stand before the traffic."""
    things: list[Actor] = []
    for side in (-1.0, 1.0):
        z = float(random.uniform(12.0, 30.0))
        while z < 110.0:
            name = SCENERY[int(random.choice(len(SCENERY), p=[0.4, 0.25, 0.2, 0.15]))]
            outside = name in ("tree", "bush")
            x = side * (layout.half_all_m + random.uniform(1.2, 5.0) if outside else layout.half_road_m + 0.4)
            street = layout.side_street_m
            if street is None or abs(z - street) > 5.0:
                heading = math.pi if name == "sign" else side * -0.5 * math.pi
                things.append(Actor.scenery(name, int(random.integers(5)), float(x), z, heading))
            z += float(random.uniform(9.0, 26.0))
    return things
