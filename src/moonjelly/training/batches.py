"""Batches to learn from, varied by chance.

A batch is drawn by its number alone (seed, step), so a training that was interrupted goes on with exactly the batches
that it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from moonjelly.models.loss import Targets
from moonjelly.training.samples import Sample

CROPPED = 0.5
"""Share of the samples that are cropped."""
SMALLEST_CROP = 0.7
SMOOTHED = 0.25
"""Share of the samples that are shrunk by averaging, as our client does; the others by interpolation alone, as our
server does and in a sixth of the time."""
RECOLOURED = 0.6
"""Share of the samples whose brightness and tint are changed."""
LEVELS = np.repeat(np.arange(256, dtype=np.float32) / np.float32(255.0), 3).reshape(1, 256, 3)


def draw_batch(
    samples: Sequence[Sample], seed: int, step: int, batch: int, sizes: Sequence[int]
) -> tuple[Tensor, Targets]:
    """The batch of training step ``step``: varied samples at one of the input ``sizes``.

    Returns:
        ``(b, 3, s, s)`` float32 RGB in [0, 1], channels last in memory, as convolutions are fastest; and its truth.
    """
    size = sizes[int(np.random.default_rng((seed, 1, step)).integers(len(sizes)))]
    varied = [_vary(samples, np.random.default_rng((seed, 2, step, number)), size) for number in range(batch)]
    images = np.empty((batch, size, size, 3), np.float32)
    for image, (picture, levels, _, _, _) in zip(images, varied, strict=True):
        cv2.LUT(picture, levels, image)
    pictures = np.repeat(np.arange(batch), [len(classes) for _, _, _, classes, _ in varied])
    corners = np.concatenate([boxes for _, _, boxes, _, _ in varied])
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    targets = Targets(
        pictures=torch.from_numpy(pictures.astype(np.int64)),
        classes=torch.from_numpy(np.concatenate([classes for _, _, _, classes, _ in varied]).astype(np.int64)),
        boxes=torch.from_numpy(boxes.astype(np.float32)),
        ignored=torch.from_numpy(np.concatenate([ignored for _, _, _, _, ignored in varied])),
    )
    return torch.from_numpy(images).permute(0, 3, 1, 2), targets


def _vary(
    samples: Sequence[Sample], random: np.random.Generator, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """A sample mirrored and cropped by chance, as ``(size, size, 3)``; what its 256 levels become in each of the three
    channels, recoloured by chance; and its boxes."""
    sample = samples[int(random.integers(len(samples)))]
    picture = simplejpeg.decode_jpeg(sample.jpeg, "RGB", min_height=size, min_width=size, min_factor=2)
    boxes, classes, ignored = sample.boxes, sample.classes, sample.ignored
    if random.random() < CROPPED:
        picture, boxes, cut = _crop(random, picture, boxes)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, classes, ignored = boxes[inside], classes[inside], (ignored | cut)[inside]
    how = cv2.INTER_AREA if random.random() < SMOOTHED else cv2.INTER_LINEAR
    picture = np.asarray(cv2.resize(picture, (size, size), interpolation=how), np.uint8)
    if random.random() < 0.5:
        picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        boxes = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
    return picture, _levels(random), boxes.astype(np.float32), classes, ignored


def _levels(random: np.random.Generator) -> NDArray[np.float32]:
    """``(1, 256, 3)``: the level in [0, 1] that each level of each channel becomes."""
    if random.random() >= RECOLOURED:
        return LEVELS
    gain = random.uniform(0.75, 1.3) * random.uniform(0.93, 1.07, 3)
    levels = np.arange(256)[:, None] * gain + random.uniform(-12.0, 12.0)
    return np.take(LEVELS[0, :, 0], np.clip(levels, 0, 255).astype(np.uint8))[None]


def _crop(
    random: np.random.Generator, picture: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """A part of a picture, the boxes in it, and which of them lost more than half."""
    height, width = picture.shape[:2]
    share = random.uniform(SMALLEST_CROP, 1.0)
    rows, columns = int(height * share), int(width * share)
    top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
    shift = np.asarray([left / width, top / height] * 2, np.float32)
    scale = np.asarray([width / columns, height / rows] * 2, np.float32)
    whole = (boxes - shift) * scale
    kept = np.clip(whole, 0.0, 1.0)
    before = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    after = np.prod(np.maximum(kept[:, 2:] - kept[:, :2], 0.0), axis=1)
    return picture[top : top + rows, left : left + columns], kept, after < 0.5 * before
