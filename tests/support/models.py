"""Small models with random weights, made without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moonjelly.inference import FrameInput, ModelSource
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.weights import Header, encode_weights, parameter_shapes
from moonjelly.repository import source_digest
from moonjelly.types import Variant

CLASSES = ("car", "person", "bus")

TINY_CFG = """
[net]
width=64
height=64
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
groups=2
activation=mish

[maxpool]
size=3
stride=1

[route]
layers=-1,-2

[convolutional]
filters=32
size=1
stride=1
activation=swish

[shortcut]
from=-2
activation=relu

[maxpool]
size=2
stride=2

[convolutional]
filters=16
size=1
stride=1
activation=linear

[yolo]
mask=0,1
anchors=8,8, 20,16, 40,30
classes=3
num=3
scale_x_y=1.05

[route]
layers=-2

[upsample]
stride=2

[route]
layers=-1,-6
groups=2
group_id=1

[convolutional]
filters=8
size=1
stride=1
activation=linear

[yolo]
mask=2
anchors=8,8, 20,16, 40,30
classes=3
num=3
"""


def tiny_source(seed: int = 0, definition: str = TINY_CFG, classes: tuple[str, ...] = CLASSES) -> ModelSource:
    """A detector that sees something in any picture."""
    config = parse_cfg(definition)
    draw = np.random.default_rng(seed)
    arrays = []
    for section in config.convolutions:
        named = {name: draw.normal(0.0, 0.3, shape) for name, shape in parameter_shapes(section).items()}
        for name in ("scale", "variance"):
            if name in named:
                named[name] = np.abs(named[name]) + 0.5
        arrays.append({name: values.astype(np.float32) for name, values in named.items()})
    weights = encode_weights(config, arrays, Header())
    return ModelSource("tiny", "darknet", definition, weights, classes, source_digest(definition, weights))


def tiny_variant(size: int = 64, precision: str = "fp32") -> Variant:
    """The detector at an input size."""
    return Variant(f"tiny-{size}", "tiny", size, precision)


def noise_frames(count: int, size: int, seed: int = 0, stream: str = "camera") -> list[FrameInput]:
    """Smooth random pictures."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    return [FrameInput(stream, number, image) for number, image in enumerate(images)]


def without_pixels(frames: Sequence[FrameInput]) -> list[FrameInput]:
    """The same frames for an executor that does not look."""
    return [FrameInput(frame.stream, frame.frame_id, None) for frame in frames]
