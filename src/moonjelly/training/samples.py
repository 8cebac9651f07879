"""Pictures to learn from: frames of many scenes, kept as JPEG, with what is asked for in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from moonjelly.scenes import CLASSES, Drift, FrameLabels, Scene, SceneOptions
from moonjelly.scenes.conditions import draw_conditions

KEPT_QUALITY = 90
MIX_EVENNESS = 1.5
"""Concentration of the Dirichlet distribution that varied class mixes are drawn from."""
DENSITIES = (0.8, 1.8)
"""Range of the traffic's density in varied scenes."""


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """A picture and its truth.

    Attributes:
        jpeg: the frame.
        boxes: ``(n, 4)`` float32, ``x1 y1 x2 y2`` as fractions.
        classes: ``(n,)`` int32.
        ignored: ``(n,)`` bool, not asked for.
    """

    jpeg: bytes
    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Which frames to draw.

    Attributes:
        first_seed: of the first scene.
        scenes: how many, with consecutive seeds.
        frames: of each scene.
        varied_mix: busier scenes, each with a class mix of its own, so that rare classes are learnt as well.
        apart_s: seconds between frames.
    """

    first_seed: int
    scenes: int
    frames: int
    varied_mix: bool
    apart_s: float = 4.1


def draw_samples(options: SampleOptions, progress: Callable[[int, int], None] | None = None) -> list[Sample]:
    """Draw the frames of several scenes.

    Args:
        options: which.
        progress: called with scenes done and scenes in all.
    """
    samples: list[Sample] = []
    for number in range(options.scenes):
        seed = options.first_seed + number
        scene = Scene(seed, SceneOptions(drift=_varied(seed) if options.varied_mix else None))
        step = round(options.apart_s * scene.options.fps)
        samples += [make_sample(*scene.frame(index * step)) for index in range(options.frames)]
        if progress is not None:
            progress(number + 1, options.scenes)
    return samples


def _varied(seed: int) -> Drift:
    """Ordinary light and weather, and any class mix."""
    random = np.random.default_rng((seed, 21))
    mix = tuple(float(share) for share in random.dirichlet(np.full(len(CLASSES), MIX_EVENNESS)))
    density = float(random.uniform(*DENSITIES))
    return Drift.steady(dataclasses.replace(draw_conditions(random), mix=mix, density=density))


def make_sample(picture: NDArray[np.uint8], labels: FrameLabels) -> Sample:
    """Encode a frame and settle what is asked for in it."""
    jpeg = simplejpeg.encode_jpeg(picture, KEPT_QUALITY, "RGB", "420")
    height, width = picture.shape[:2]
    return Sample(jpeg, labels.boxes, labels.classes, ~labels.asked(width, height))
