"""Sprites at their size in the frame and in its light, ready to be blended.

Blending a stamp takes one multiplication and one addition of bytes. The smallest box around a stamp is exactly the box
of what it changes; hardly covered pixels of small stamps are cut off, so that their boxes are tight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.scenes.bodies import build
from moonjelly.scenes.light import Light
from moonjelly.scenes.sprites import DEPRESSION_STEP, YAW_STEPS, Figure, Look, Sprite, rasterise

CUT_OFF = 40
"""Opacity out of 255 below which a pixel is cut off."""
CUT_UP_TO_PX = 96
"""Larger stamps are not cut: a faint pixel more does not matter to their boxes."""
SOLID = 128
"""Opacity out of 255 from which a pixel counts as the body's."""
LARGE = 0.2
"""Stamps larger than this share of the frame's width are made anew each time, and only where they are in the frame."""
FOG_STEPS = 32
STAMPS_REMEMBERED = 1500
SPRITES_REMEMBERED = 600


class Spot(NamedTuple):
    """Where a body's origin is in the frame.

    Attributes:
        column: in pixels.
        row: in pixels.
        px_per_m: scale there.
        distance_m: from the camera along the road.
        depression: angle below the horizontal under which it is seen, radians.
    """

    column: float
    row: float
    px_per_m: float
    distance_m: float
    depression: float


@dataclass(frozen=True, eq=False, slots=True)
class Stamp:
    """A sprite ready to be blended.

    Attributes:
        colour: ``(h, w, 3)`` uint8 to be added after multiplying what is there by ``keep / 255``.
        keep: ``(h, w, 3)`` uint8.
        body: ``(h, w)`` uint8, 255 where the body is.
        body_pixels: how many those are, parts outside the frame included.
        left: of the stamp against the pixel of the body's origin.
        top: of the stamp against the pixel of the body's origin.
    """

    colour: NDArray[np.uint8]
    keep: NDArray[np.uint8]
    body: NDArray[np.uint8]
    body_pixels: float
    left: int
    top: int


@dataclass(frozen=True, eq=False, slots=True)
class LitSprite:
    """A sprite in a certain light and behind a certain fog.

    Attributes:
        pixels: ``(h, w, 4)`` uint8: premultiplied red, green, blue, and opacity.
        origin: column and row of the body's origin.
        px_per_m: scale.
    """

    pixels: NDArray[np.uint8]
    origin: tuple[float, float]
    px_per_m: float


class StampBook:
    """All sprites and stamps of a scene, made when first needed; the oldest are forgotten first."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        self._seed = seed
        self._frame = (width, height)
        self._side_px = min(320, max(48, width // 4))
        self._figures: dict[tuple[str, int, int], Figure] = {}
        self._sprites: dict[Look, Sprite] = {}
        self._lit: dict[_Lighting, LitSprite] = {}
        self._stamps: dict[tuple[_Lighting, int], Stamp] = {}

    def stamp(self, look: Look, spot: Spot, light: Light, lamps: bool) -> Stamp | None:
        """``look`` at ``spot``, its own lamps shining when ``lamps``; ``None`` when it is outside the frame."""
        fog = round(light.fog_at(spot.distance_m) * FOG_STEPS)
        lighting = (look, light.number, fog, lamps)
        lit = self._lit.get(lighting)
        if lit is None:
            lit = _light(self._sprite(look), light, fog / FOG_STEPS, lamps)
            _remember(self._lit, lighting, lit, SPRITES_REMEMBERED)
        larger = max(lit.pixels.shape)
        # The larger side decides, and grows in steps of about 2 %, so that stamps are used again.
        side = max(1, round(larger * spot.px_per_m / lit.px_per_m))
        side -= side % max(1, side // 50)
        if side > LARGE * self._frame[0]:
            return _part(lit, side / larger, spot, self._frame)
        stamp = self._stamps.get((lighting, side))
        if stamp is None:
            stamp = _whole(lit, side / larger)
            _remember(self._stamps, (lighting, side), stamp, STAMPS_REMEMBERED)
        return stamp

    def _sprite(self, look: Look) -> Sprite:
        sprite = self._sprites.get(look)
        if sprite is None:
            yaw = 2.0 * math.pi * look.yaw / YAW_STEPS
            sprite = rasterise(self._figure(look), yaw, look.depression * DEPRESSION_STEP, self._side_px)
            _remember(self._sprites, look, sprite, SPRITES_REMEMBERED)
        return sprite

    def _figure(self, look: Look) -> Figure:
        key = (look.name, look.style, look.motion)
        figure = self._figures.get(key)
        if figure is None:
            # The sum of its letters tells a class from another; the stride must not change the look.
            random = np.random.default_rng((self._seed, sum(map(ord, look.name)), look.style))
            figure = Figure.of(build(look.name, random, look.motion))
            self._figures[key] = figure
        return figure


_Lighting = tuple[Look, int, int, bool]
_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


def _remember(kept: dict[_Key, _Kept], key: _Key, value: _Kept, most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value


def _light(sprite: Sprite, light: Light, fog: float, lamps: bool) -> LitSprite:
    pixels = _bytes(cv2.transform(sprite.base, light.through_fog(fog)))
    if lamps and sprite.lamps is not None:
        colour = _bytes(cv2.scaleAdd(sprite.lamps, light.lamps * (1.0 - fog), _colour(pixels)))
        cv2.mixChannels([colour], [pixels], [0, 0, 1, 1, 2, 2])
    return LitSprite(pixels, sprite.origin, sprite.px_per_m)


def _colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _bytes(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB))


def _opacity(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _bytes(cv2.extractChannel(pixels, 3))


def _bytes(array: object) -> NDArray[np.uint8]:
    """OpenCV's stubs only say "some array"; these are of bytes."""
    return np.asarray(array, np.uint8)


def _whole(lit: LitSprite, ratio: float) -> Stamp:
    height, width = lit.pixels.shape[:2]
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    interpolation = cv2.INTER_AREA if ratio < 0.6 else cv2.INTER_LINEAR
    pixels = _bytes(cv2.resize(lit.pixels, size, interpolation=interpolation))
    colour, opacity = _colour(pixels), _opacity(pixels)
    if max(size) <= CUT_UP_TO_PX:
        opacity = _bytes(cv2.LUT(opacity, _CUT))
        colour = _bytes(cv2.bitwise_and(colour, cv2.cvtColor(cv2.LUT(opacity, _ANY), cv2.COLOR_GRAY2RGB)))
    if not cv2.hasNonZero(opacity):
        # Too thin for its size in pixels: it stays as a dot where it stands.
        opacity[-1, size[0] // 2] = CUT_OFF
    body = _bytes(cv2.LUT(opacity, _MOST))
    if not cv2.hasNonZero(body):
        body = _bytes(cv2.LUT(opacity, _ANY))
    left, top = -round(lit.origin[0] * size[0] / width), -round(lit.origin[1] * size[1] / height)
    return _trimmed(colour, opacity, body, float(cv2.countNonZero(body)), left, top)


def _part(lit: LitSprite, ratio: float, spot: Spot, frame: tuple[int, int]) -> Stamp | None:
    """What of a large stamp is within the frame."""
    height, width = lit.pixels.shape[:2]
    left, top = -round(lit.origin[0] * ratio), -round(lit.origin[1] * ratio)
    column, row = round(spot.column), round(spot.row)
    x0, y0 = max(0, -(column + left)), max(0, -(row + top))
    x1, y1 = min(round(width * ratio), frame[0] - column - left), min(round(height * ratio), frame[1] - row - top)
    if x0 >= x1 or y0 >= y1:
        return None
    # Pixel centres of the part, traced back to the sprite.
    back = np.asarray([[1 / ratio, 0, (x0 + 0.5) / ratio - 0.5], [0, 1 / ratio, (y0 + 0.5) / ratio - 0.5]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = _bytes(cv2.warpAffine(lit.pixels, back, (x1 - x0, y1 - y0), flags=how))
    opacity = _opacity(pixels)
    if not cv2.hasNonZero(opacity):
        return None
    count = cv2.countNonZero(cv2.LUT(_opacity(lit.pixels), _MOST)) * ratio * ratio
    body = _bytes(cv2.LUT(opacity, _MOST))
    return _trimmed(_colour(pixels), opacity, body, count, left + x0, top + y0)


def _trimmed(
    colour: NDArray[np.uint8], opacity: NDArray[np.uint8], body: NDArray[np.uint8], pixels: float, left: int, top: int
) -> Stamp:
    x, y, columns, rows = cv2.boundingRect(opacity)
    window = (slice(y, y + rows), slice(x, x + columns))
    keep = _bytes(cv2.cvtColor(cv2.bitwise_not(opacity[window]), cv2.COLOR_GRAY2RGB))
    return Stamp(colour[window], keep, body[window], pixels, left + x, top + y)


_LEVELS = np.arange(256)
_CUT = np.where(_LEVELS < CUT_OFF, 0, _LEVELS).astype(np.uint8)
_ANY = np.where(_LEVELS > 0, 255, 0).astype(np.uint8)
_MOST = np.where(_LEVELS >= SOLID, 255, 0).astype(np.uint8)
