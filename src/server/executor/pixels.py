"""From the bytes in a slot to an image that fits the active variant."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import FrameError
from moonjelly.inference.preprocess import DecodeLimits, decode, header
from server import ipc


def prepare(data: memoryview, submit: ipc.Submit, input_size: int, limits: DecodeLimits) -> NDArray[np.uint8]:
    """Decode and resize one frame.

    Raises:
        FrameError: broken or too large a picture, or not of the announced size.
    """
    width, height = header(data)
    if (width, height) != (submit.width, submit.height):
        raise FrameError(
            f"frame {submit.frame_id} was announced as {submit.width}x{submit.height} but its picture is "
            f"{width}x{height}; announce the size of the encoded picture"
        )
    return decode(data, input_size, limits)


def fit(image: NDArray[np.uint8], input_size: int) -> NDArray[np.uint8]:
    """``image`` at ``input_size``: the same object when it fits, resized when the variant changed after its arrival."""
    if image.shape[0] == input_size:
        return image
    mode = cv2.INTER_AREA if image.shape[0] > input_size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (input_size, input_size), interpolation=mode), np.uint8)
