"""Resizing and JPEG encoding, off the event loop.

A frame is squashed to the variant's square input, as Jellyfish's clients do: boxes travel as fractions of the frame,
so its aspect ratio needs no note on the wire. It is made smaller as servers and the training of the zoos do it:
halved while it is at least twice the size, then bilinear. The mean over areas of any size costs several times what
JPEG does, and networks that were not trained on it gain nothing by it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from moonjelly.errors import FrameError
from moonjelly.sdk.results import EncodedFrame

MAX_SIDE = 16_384
"""Pixels; larger pictures are a mistake, not a camera."""


def check_picture(rgb: NDArray[np.uint8]) -> None:
    """Accept ``(h, w, 3)`` uint8 only.

    Raises:
        FrameError: names what is wrong.
    """
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        kind = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise FrameError(f"a frame must be an RGB array (height, width, 3) of uint8; got {kind}")
    if not (0 < rgb.shape[0] <= MAX_SIDE and 0 < rgb.shape[1] <= MAX_SIDE):
        raise FrameError(f"a frame must be 1..{MAX_SIDE} pixels on a side; got {rgb.shape[1]}x{rgb.shape[0]}")


def encode(rgb: NDArray[np.uint8], size: int, variant: int, quality: int) -> EncodedFrame:
    """Squash to ``size`` x ``size`` and encode.

    Args:
        rgb: ``(h, w, 3)`` uint8.
        size: side in pixels.
        variant: index that it is sized for, carried along.
        quality: 1..100.

    Raises:
        FrameError: not such an array.
    """
    check_picture(rgb)
    started = time.perf_counter_ns()
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(squash(rgb, size)), quality, "RGB", "420")
    return EncodedFrame(data, size, size, variant, quality, (time.perf_counter_ns() - started) / 1e6)


def squash(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Stretch ``(h, w, 3)`` to ``(size, size, 3)``."""
    height, width = rgb.shape[:2]
    halvings = max(0, (min(height, width) // size).bit_length() - 1)
    if halvings:
        part = (max(1, width >> halvings), max(1, height >> halvings))
        rgb = np.asarray(cv2.resize(rgb, part, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


class Encoder:
    """A small thread pool; both libraries release the interpreter's lock."""

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="moonjelly-encoder")

    async def encode(self, rgb: NDArray[np.uint8], size: int, variant: int, quality: int) -> EncodedFrame:
        """:func:`encode` on the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, encode, rgb, size, variant, quality)

    def close(self) -> None:
        """Let running work end and free the threads. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)
