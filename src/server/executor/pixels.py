"""From the bytes in a slot to an image that fits the active variant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import FrameError
from moonjelly.inference.preprocess import DecodeLimits, announced, decode, resize
from server import ipc


def check(data: memoryview, submit: ipc.Submit, limits: DecodeLimits) -> None:
    """Look at the announced size only: all that a device needs that does not look at pixels.

    Raises:
        FrameError: no JPEG, too large a picture, or not of the announced size.
    """
    width, height = announced(data, limits)
    if (width, height) != (submit.width, submit.height):
        raise FrameError(
            f"frame {submit.frame_id} was announced as {submit.width}x{submit.height} but its picture is "
            f"{width}x{height}; announce the size of the encoded picture"
        )


def prepare(data: memoryview, submit: ipc.Submit, input_size: int, limits: DecodeLimits) -> NDArray[np.uint8]:
    """Check, decode and resize one frame.

    Raises:
        FrameError: as in :func:`check`, or the picture is broken.
    """
    check(data, submit, limits)
    return decode(data, input_size, limits)


def fit(image: NDArray[np.uint8], input_size: int) -> NDArray[np.uint8]:
    """``image`` at ``input_size``: the same object when it fits, resized when the variant changed after its arrival."""
    return image if image.shape[0] == input_size else resize(image, input_size)
