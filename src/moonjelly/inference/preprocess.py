"""From an encoded picture to a model's input: check, decode, stretch.

The header is read first, so that a few bytes cannot make anybody allocate gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from moonjelly.errors import FrameError
from moonjelly.inference import jpeg


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a frame may be at most.

    Attributes:
        max_bytes: encoded size.
        max_side: width or height in pixels.
        max_pixels: width times height.
    """

    max_bytes: int = 8 << 20
    max_side: int = 8192
    max_pixels: int = 16 << 20


DEFAULT_LIMITS = DecodeLimits()


def announced(data: bytes | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height that a JPEG announces; its header is not checked beyond that.

    Raises:
        FrameError: it is no JPEG, or exceeds ``limits``.
    """
    return _size(jpeg.size, data, limits)


def header(data: bytes | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height that a JPEG's header gives, as its decoder reads it; the picture is not decoded.

    Raises:
        FrameError: it is no JPEG, or exceeds ``limits``.
    """
    return _size(_decoders_size, data, limits)


def _decoders_size(data: bytes | memoryview) -> tuple[int, int]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    return width, height


def _size(
    read: Callable[[bytes | memoryview], tuple[int, int]], data: bytes | memoryview, limits: DecodeLimits
) -> tuple[int, int]:
    if len(data) > limits.max_bytes:
        raise FrameError(f"frame has {len(data)} bytes; at most {limits.max_bytes} are allowed")
    try:
        width, height = read(data)
    except ValueError as fault:
        raise FrameError(f"frame of {len(data)} bytes is no readable JPEG: {fault}") from None
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise FrameError(
            f"frame is {width} x {height}; at most {limits.max_side} a side and {limits.max_pixels} pixels are allowed"
        )
    return width, height


def decode(data: bytes | memoryview, size: int, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode a JPEG and stretch it to a square.

    A picture of twice the size or more is decoded at a half, a quarter or an eighth of it, which the JPEG decoder
    does on the way and for less than the full picture costs.

    Args:
        data: the encoded picture.
        size: side of the square in pixels.
        limits: see :class:`DecodeLimits`.

    Returns:
        ``(size, size, 3)`` uint8 RGB, contiguous.

    Raises:
        FrameError: it is no JPEG, is cut short or corrupt, or exceeds ``limits``.
    """
    header(data, limits)
    try:
        picture = simplejpeg.decode_jpeg(data, "RGB", min_height=size, min_width=size, min_factor=2)
    except ValueError as fault:
        raise FrameError(f"frame of {len(data)} bytes cannot be decoded: {fault}") from None
    if picture.shape[:2] == (size, size):
        return np.asarray(picture, np.uint8)
    return resize(picture, size)


def resize(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Stretch ``(h, w, 3)`` to ``(size, size, 3)`` by bilinear interpolation."""
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
