"""What every executor that looks at pixels does before and after it runs a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moonjelly.detection import postprocess
from moonjelly.errors import ExecutorError, ModelError
from moonjelly.inference.options import PostOptions
from moonjelly.inference.protocol import FrameInput, ModelSource
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.definition import NetworkConfig
from moonjelly.types import Detections, Variant


def read_config(variant: Variant, source: ModelSource) -> NetworkConfig:
    """Parse a model's definition and check that ``variant`` can run it.

    Raises:
        ModelError: the architecture is unknown, the definition is broken, the input size is no multiple of its stride,
            or it knows another number of classes than the zoo names.
    """
    if source.architecture not in ("darknet", "pth"):
        raise ModelError(f"model '{source.name}' has architecture '{source.architecture}'; darknet and pth can be run")
    config = parse_cfg(source.definition)
    if config.channels != 3:
        raise ModelError(f"model '{source.name}' takes {config.channels} channels; frames have 3")
    if variant.input_size % config.stride:
        raise ModelError(
            f"variant '{variant.name}': input size {variant.input_size} is no multiple of the stride {config.stride} "
            f"of model '{source.name}'"
        )
    if config.class_count != len(source.classes):
        raise ModelError(
            f"model '{source.name}' tells {config.class_count} classes apart, {len(source.classes)} are named"
        )
    return config


def fill(buffer: NDArray[np.uint8], variant: str, frames: Sequence[FrameInput]) -> NDArray[np.uint8]:
    """Copy the pictures of a batch into the first rows of ``buffer``; returns these rows.

    Args:
        buffer: ``(max_batch, s, s, 3)``.
        variant: named in errors.
        frames: the batch.

    Raises:
        ExecutorError: the batch is empty or too large, or a picture is missing or of another shape.
    """
    if not 1 <= len(frames) <= len(buffer):
        raise ExecutorError(f"variant '{variant}' was loaded for batches 1..{len(buffer)}, not {len(frames)}")
    size = buffer.shape[1]
    for row, frame in zip(buffer, frames, strict=False):
        image = frame.image
        if image is None or image.shape != (size, size, 3) or image.dtype != np.uint8:
            found = "nothing" if image is None else f"{image.shape} {image.dtype}"
            raise ExecutorError(
                f"frame {frame.frame_id} of stream '{frame.stream}': variant '{variant}' takes ({size}, {size}, 3) "
                f"uint8, not {found}"
            )
        row[:] = image
    return buffer[: len(frames)]


def answers(rows: NDArray[np.float32], post: PostOptions) -> list[Detections]:
    """Detections from a network's ``(b, k, 5 + C)`` candidates, one per frame."""
    return postprocess(
        rows,
        post.score_threshold,
        post.nms_iou,
        multi_label=post.multi_label,
        max_detections=post.max_detections,
    )


def not_resident(variant: str, resident: Sequence[str] | frozenset[str]) -> ExecutorError:
    """The error for a variant that was not loaded."""
    return ExecutorError(f"variant '{variant}' is not resident; resident are {', '.join(sorted(resident)) or 'none'}")
