"""What the classes look like: each style of a class is a handful of solids with drawn sizes and colours."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np

from moonjelly.scenes.conditions import CLASSES
from moonjelly.scenes.shapes import Ball, Colour, Solid, Stroke, block, disc, pane, plate, ring, wheel
from moonjelly.scenes.traffic import MOTION_STEPS

SCENERY = ("tree", "bush", "pole", "sign")
"""What stands beside a road and may hide an object; nothing of it is labelled."""

_GLASS: Colour = (0.13, 0.16, 0.2)
_TYRE: Colour = (0.07, 0.07, 0.08)
_WHITE_LAMP: Colour = (1.0, 0.95, 0.8)
_RED_LAMP: Colour = (0.9, 0.08, 0.05)
_SKINS: tuple[Colour, ...] = ((0.93, 0.76, 0.65), (0.8, 0.6, 0.46), (0.55, 0.38, 0.27), (0.35, 0.23, 0.17))
_PAINTS: tuple[Colour, ...] = (
    (0.9, 0.9, 0.9),
    (0.1, 0.1, 0.11),
    (0.55, 0.56, 0.58),
    (0.75, 0.76, 0.78),
    (0.62, 0.09, 0.09),
    (0.1, 0.18, 0.42),
    (0.16, 0.3, 0.2),
    (0.72, 0.62, 0.2),
    (0.35, 0.22, 0.14),
    (0.2, 0.45, 0.6),
)


def build(name: str, random: np.random.Generator, motion: int) -> list[Solid]:
    """The solids of one look of ``name`` (a class or a piece of scenery) at step ``motion`` of its stride."""
    return _BUILDERS[name](random, 2.0 * math.pi * motion / MOTION_STEPS)


def moves(kind: int) -> bool:
    """Whether the look of a class depends on its stride."""
    return CLASSES[kind] in ("person", "bicycle")


def _paint(random: np.random.Generator) -> Colour:
    return _PAINTS[int(random.integers(len(_PAINTS)))]


def _cloth(random: np.random.Generator) -> Colour:
    hue, saturation, value = random.random(3)
    return colorsys.hsv_to_rgb(float(hue), float(0.8 * saturation), float(0.12 + 0.75 * value))


def _wheels(half_length: float, half_width: float, radius: float, at: tuple[float, ...]) -> list[Solid]:
    return [wheel(place * half_length, side * (half_width + 0.01), radius, _TYRE) for place in at for side in (-1, 1)]


def _lamps(a: float, half_width: float, c: tuple[float, float], colour: Colour, *, rear: bool) -> list[Solid]:
    inner, outer = 0.55 * half_width, 0.95 * half_width
    at = -a if rear else a
    off = (0.55, 0.08, 0.08) if rear else (0.85, 0.85, 0.82)
    return [plate(at, span, c, off, colour) for span in ((-outer, -inner), (inner, outer))]


def _car(random: np.random.Generator, _: float) -> list[Solid]:
    length, width = float(random.uniform(3.7, 4.8)), float(random.uniform(1.65, 1.9))
    tall = float(random.uniform(1.4, 1.55)) if random.random() < 0.65 else float(random.uniform(1.6, 1.85))
    paint, a, b = _paint(random), length / 2, width / 2
    waist = 0.56 * tall
    rear = float(random.choice([-0.95, -0.72, -0.62]))
    solids = block((-a, a), (-b, b), (0.25, waist), paint)
    roof_a, roof_b = (rear * a * 0.86, 0.12 * a), (-0.74 * b, 0.74 * b)
    cabin = ((rear * a, 0.42 * a), (-0.92 * b, 0.92 * b), (waist, tall))
    solids += block(*cabin, _GLASS, top=paint, top_a=roof_a, top_b=roof_b)
    solids += [
        plate(a + 0.01, (-0.45 * b, 0.45 * b), (0.3, 0.5), (0.1, 0.1, 0.1)),
        plate(-a - 0.01, (-0.3, 0.3), (0.45, 0.58), (0.85, 0.85, 0.8)),
    ]
    solids += _lamps(a + 0.02, b, (0.58, 0.74), _WHITE_LAMP, rear=False)
    solids += _lamps(a + 0.02, b, (0.6, 0.8), _RED_LAMP, rear=True)
    return solids + _wheels(a, b, 0.32, (-0.62, 0.62))


def _truck(random: np.random.Generator, _: float) -> list[Solid]:
    length, tall = float(random.uniform(5.4, 8.2)), float(random.uniform(2.6, 3.4))
    paint, cargo, a, b = _paint(random), _paint(random), length / 2, 1.2
    cab_tall, cab_from = 0.8 * tall, a - 1.9
    solids = block((-a, a), (-0.85 * b, 0.85 * b), (0.45, 0.8), (0.12, 0.12, 0.13))
    solids += block((cab_from, a), (-0.95 * b, 0.95 * b), (0.45, cab_tall), paint, top_a=(cab_from, a - 0.35))
    solids += [plate(a - 0.12, (-0.85 * b, 0.85 * b), (0.58 * cab_tall, 0.88 * cab_tall), _GLASS)]
    solids += [
        pane((cab_from + 0.6, a - 0.4), side * 0.96 * b, (0.58 * cab_tall, 0.85 * cab_tall), _GLASS) for side in (-1, 1)
    ]
    if random.random() < 0.75:
        solids += block((-a, cab_from - 0.15), (-b, b), (0.8, tall), cargo)
        solids += [plate(-a - 0.01, (-0.03, 0.03), (0.85, tall), (0.2, 0.2, 0.2))]
    else:
        solids += block((-a, cab_from - 0.15), (-b, b), (0.8, 0.55 * tall), cargo, top=(0.4, 0.33, 0.24))
    solids += _lamps(a + 0.02, b, (0.6, 0.85), _WHITE_LAMP, rear=False) + _lamps(
        a + 0.02, b, (0.55, 0.75), _RED_LAMP, rear=True
    )
    return solids + _wheels(a, 0.98 * b, 0.48, (-0.7, -0.45, 0.72))


def _bus(random: np.random.Generator, _: float) -> list[Solid]:
    length, tall = float(random.uniform(9.0, 11.5)), float(random.uniform(2.9, 3.2))
    paint, a, b = _cloth(random), length / 2, 1.25
    roof: Colour = (0.8, 0.8, 0.8)
    solids = block((-a, a), (-b, b), (0.35, tall), paint, top=roof)
    panes = int(length / 1.6)
    pitch = 1.96 * a / panes
    for number in range(panes):
        span = (-0.98 * a + number * pitch + 0.12, -0.98 * a + (number + 1) * pitch - 0.12)
        solids += [pane(span, side * (b + 0.01), (1.35, 0.83 * tall), _GLASS) for side in (-1, 1)]
    solids += [plate(a + 0.01, (-0.9 * b, 0.9 * b), (1.2, 0.8 * tall), _GLASS)]
    solids += [plate(a + 0.02, (-0.6 * b, 0.6 * b), (0.84 * tall, 0.95 * tall), (0.15, 0.12, 0.02), (0.9, 0.6, 0.1))]
    solids += [plate(-a - 0.01, (-0.8 * b, 0.8 * b), (1.7, 0.85 * tall), _GLASS)]
    solids += _lamps(a + 0.02, b, (0.6, 0.85), _WHITE_LAMP, rear=False) + _lamps(
        a + 0.02, b, (0.6, 0.95), _RED_LAMP, rear=True
    )
    return solids + _wheels(a, b, 0.48, (-0.55, 0.62))


def _rider(random: np.random.Generator, seat: float, lean: float, helmet: bool) -> list[Solid]:
    cloth, skin = _cloth(random), _SKINS[int(random.integers(len(_SKINS)))]
    shoulder = (lean, 0.0, seat + 0.58)
    head: Colour = _cloth(random) if helmet else (0.16, 0.11, 0.08)
    solids: list[Solid] = [Stroke(((-0.1, 0.0, seat), shoulder), cloth, 0.36)]
    solids += [
        Stroke(((lean, side * 0.17, seat + 0.5), (lean + 0.4, side * 0.25, seat + 0.2)), cloth, 0.1) for side in (-1, 1)
    ]
    solids += [Ball((lean + 0.08, 0.0, seat + 0.78), skin, 0.11), Ball((lean + 0.05, 0.0, seat + 0.82), head, 0.13)]
    return solids


def _bicycle(random: np.random.Generator, turn: float) -> list[Solid]:
    frame, legs = _cloth(random), _cloth(random)
    hub, radius = 0.52, 0.34
    crank = (0.0, 0.0, 0.3)
    solids: list[Solid] = [ring(place, radius, _TYRE, 0.055) for place in (-hub, hub)]
    tubes = (
        ((-hub, 0.0, radius), crank, (0.42, 0.0, 0.75), (-0.16, 0.0, 0.78), (-hub, 0.0, radius)),
        (crank, (-0.16, 0.0, 0.88)),
    )
    solids += [Stroke(tube, frame, 0.06) for tube in tubes]
    solids += [
        Stroke(((hub, 0.0, radius), (0.42, 0.0, 0.95)), frame, 0.06),
        Stroke(((0.42, -0.25, 0.98), (0.42, 0.25, 0.98)), _TYRE, 0.05),
    ]
    for side in (-1, 1):
        pedal = (
            0.16 * math.cos(turn + side * math.pi / 2),
            side * 0.1,
            0.3 + 0.16 * math.sin(turn + side * math.pi / 2),
        )
        knee = (0.22, side * 0.12, 0.5 * (pedal[2] + 0.95) + 0.1)
        solids.append(Stroke(((-0.12, side * 0.1, 0.92), knee, pedal), legs, 0.13))
    return solids + _rider(random, 0.9, 0.18, bool(random.random() < 0.4))


def _motorcycle(random: np.random.Generator, _: float) -> list[Solid]:
    paint, trousers = _cloth(random), _cloth(random)
    hub, radius = 0.7, 0.31
    solids: list[Solid] = [disc(place, radius, _TYRE) for place in (-hub, hub)]
    solids += [Stroke(((place, 0.0, 0.03), (place, 0.0, 0.6)), _TYRE, 0.14) for place in (-hub, hub)]
    solids += block((-0.55, 0.5), (-0.17, 0.17), (0.3, 0.68), (0.16, 0.16, 0.17))
    solids += block((-0.95, 0.1), (-0.16, 0.16), (0.66, 0.82), (0.08, 0.08, 0.08))
    solids += block((0.05, 0.78), (-0.2, 0.2), (0.62, 0.98), paint, top_a=(0.1, 0.6))
    solids += [
        Stroke(((hub, 0.0, radius), (0.55, 0.0, 1.0)), (0.5, 0.5, 0.5), 0.1),
        Stroke(((0.5, -0.36, 1.05), (0.5, 0.36, 1.05)), _TYRE, 0.06),
    ]
    solids += [
        plate(0.8, (-0.12, 0.12), (0.7, 0.9), (0.85, 0.85, 0.8), _WHITE_LAMP),
        plate(-0.96, (-0.1, 0.1), (0.68, 0.8), (0.5, 0.06, 0.06), _RED_LAMP),
    ]
    solids += [
        Stroke(((-0.15, side * 0.2, 0.85), (0.25, side * 0.27, 0.7), (0.05, side * 0.25, 0.3)), trousers, 0.16)
        for side in (-1, 1)
    ]
    return solids + _rider(random, 0.85, 0.2, True)


def _person(random: np.random.Generator, turn: float) -> list[Solid]:
    tall = float(random.uniform(1.5, 1.92)) if random.random() < 0.85 else float(random.uniform(1.1, 1.4))
    unit = tall / 1.75
    coat, trousers, skin = _cloth(random), _cloth(random), _SKINS[int(random.integers(len(_SKINS)))]
    hair: Colour = (0.12, 0.09, 0.07) if random.random() < 0.7 else (0.6, 0.5, 0.35)
    hip, stride = 0.86 * unit, 0.3 * unit * math.sin(turn)
    solids: list[Solid] = []
    for side in (-1, 1):
        foot = side * stride
        solids.append(
            Stroke(
                ((0.0, side * 0.09, hip), (0.5 * foot + 0.03, side * 0.1, 0.5 * hip), (foot, side * 0.1, 0.04)),
                trousers,
                0.16 * unit,
            )
        )
        hand = (-0.8 * foot, side * 0.27 * unit, 0.8 * unit)
        solids.append(Stroke(((0.0, side * 0.22 * unit, 1.38 * unit), hand), coat, 0.11 * unit))
    long_coat = float(random.choice([0.0, 0.25])) * unit
    half = 0.2 * unit
    solids += block(
        (-0.12, 0.12), (-half, half), (hip - 0.04 - long_coat, 1.46 * unit), coat, top_b=(-0.8 * half, 0.8 * half)
    )
    if random.random() < 0.3:
        solids += block((-0.3, -0.13), (-0.15, 0.15), (1.0 * unit, 1.4 * unit), _cloth(random))
    return [
        *solids,
        Ball((0.03, 0.0, 1.62 * unit), skin, 0.11 * unit),
        Ball((-0.01, 0.0, 1.66 * unit), hair, 0.115 * unit),
    ]


def _tree(random: np.random.Generator, _: float) -> list[Solid]:
    tall, spread = float(random.uniform(4.0, 6.5)), float(random.uniform(1.0, 1.7))
    leaf = np.asarray([0.16, 0.3, 0.13]) * random.uniform(0.7, 1.3)
    solids: list[Solid] = [Stroke(((0.0, 0.0, 0.0), (0.0, 0.0, 0.6 * tall)), (0.25, 0.18, 0.12), 0.25)]
    for _ball in range(14):
        a, b, c = random.normal(0.0, 0.45, 3) * spread
        shade = leaf * random.uniform(0.75, 1.25)
        colour = (float(shade[0]), float(shade[1]), float(shade[2]))
        solids.append(
            Ball((float(a), float(b), 0.72 * tall + float(c)), colour, float(random.uniform(0.4, 0.65)) * spread)
        )
    return solids


def _bush(random: np.random.Generator, _: float) -> list[Solid]:
    shade = np.asarray([0.2, 0.33, 0.15]) * random.uniform(0.6, 1.2)
    colour = (float(shade[0]), float(shade[1]), float(shade[2]))
    spots = random.uniform(-0.8, 0.8, (7, 2))
    return [Ball((float(a), float(b), 0.45), colour, float(random.uniform(0.35, 0.6))) for a, b in spots]


def _pole(random: np.random.Generator, _: float) -> list[Solid]:
    grey: Colour = (0.32, 0.33, 0.34)
    tall = float(random.uniform(5.5, 7.5))
    return [Stroke(((0.0, 0.0, 0.0), (0.0, 0.0, tall), (0.0, 1.4, tall + 0.2)), grey, 0.16)]


def _sign(random: np.random.Generator, _: float) -> list[Solid]:
    colour = ((0.7, 0.1, 0.1), (0.1, 0.2, 0.6), (0.85, 0.75, 0.1))[int(random.integers(3))]
    solids: list[Solid] = [Stroke(((0.0, 0.0, 0.0), (0.0, 0.0, 2.2)), (0.5, 0.5, 0.5), 0.08)]
    return [
        *solids,
        plate(0.04, (-0.35, 0.35), (1.9, 2.6), (0.55, 0.55, 0.55)),
        plate(-0.04, (-0.35, 0.35), (1.9, 2.6), colour),
    ]


_BUILDERS: dict[str, Callable[[np.random.Generator, float], list[Solid]]] = {
    "person": _person,
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "bicycle": _bicycle,
    "motorcycle": _motorcycle,
    "tree": _tree,
    "bush": _bush,
    "pole": _pole,
    "sign": _sign,
}
