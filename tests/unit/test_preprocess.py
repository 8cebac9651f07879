"""Decoding: sizes are checked before anything is allocated, and bad bytes are errors with words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from moonjelly.errors import FrameError
from moonjelly.inference.preprocess import DecodeLimits, announced, decode, header, resize


def picture(height: int, width: int) -> np.ndarray:
    """A red-to-green ramp with blue on the right half."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None, :]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[:, width // 2 :, 2] = 200
    return image


def jpeg(height: int = 48, width: int = 64, quality: int = 95) -> bytes:
    return simplejpeg.encode_jpeg(picture(height, width), quality=quality)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(48, 64, 32), (480, 640, 416), (720, 1280, 128), (32, 32, 32), (30, 40, 96)]
)
def test_a_picture_becomes_a_square_of_the_same_content(height: int, width: int, size: int) -> None:
    square = decode(jpeg(height, width), size)
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    expected = resize(picture(height, width), size)
    assert np.abs(square.astype(int) - expected.astype(int)).mean() < 4.0


def test_colours_are_rgb() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    assert decode(simplejpeg.encode_jpeg(red), 16)[8, 8, 0] > 240


def test_grey_pictures_are_decoded_to_three_channels() -> None:
    grey = simplejpeg.encode_jpeg(np.full((20, 30, 1), 77, np.uint8), colorspace="GRAY")
    assert np.abs(decode(grey, 16).astype(int) - 77).max() <= 2


def test_any_buffer_will_do() -> None:
    data = jpeg()
    for buffer in (memoryview(data), bytearray(data), memoryview(bytearray(data))[:]):
        assert np.array_equal(decode(buffer, 32), decode(data, 32))


@pytest.mark.parametrize("read", [header, announced])
def test_the_size_is_read_without_decoding(read: Callable[[bytes], tuple[int, int]]) -> None:
    assert read(jpeg(48, 64)) == (64, 48)
    with pytest.raises(FrameError, match="frame is 64 x 48; at most 63 a side"):
        read(jpeg(48, 64), DecodeLimits(max_side=63))


@pytest.mark.parametrize("progressive", [False, True])
def test_pictures_of_another_encoder_announce_their_size(progressive: bool) -> None:
    done, encoded = cv2.imencode(".jpg", picture(70, 90), [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])
    assert done
    assert announced(encoded.tobytes()) == announced(memoryview(encoded.tobytes())) == (90, 70)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not a jpeg at all", "it does not begin as one"),
        (b"\xff\xd8", "it ends before its size"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "it ends before its size"),
        (b"\xff\xd8\xff\xe0\x00\x03.JFIF", "byte 7 should begin a marker and is 74"),
        (b"\xff\xd8\xff\xda\x00\x08", "marker 0xda stands before its size"),
    ],
)
def test_what_announces_no_size_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=f"frame of {len(data)} bytes is no readable JPEG: {words}"):
        announced(data)


def test_real_pictures_announce_their_size(data_dir: Path) -> None:
    pictures = sorted((data_dir / "coco").rglob("*.jpg"))
    assert pictures
    for place in pictures:
        data = place.read_bytes()
        assert announced(data) == header(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"not a jpeg at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 64])
def test_what_is_no_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=f"frame of {len(data)} bytes"):
        decode(data, 32)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_that_is_cut_short_is_refused(share: float) -> None:
    data = jpeg(480, 640)
    with pytest.raises(FrameError, match="bytes"):
        decode(data[: int(len(data) * share)], 416)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (DecodeLimits(max_bytes=100), r"bytes; at most 100 are allowed"),
        (DecodeLimits(max_side=63), r"frame is 64 x 48; at most 63 a side"),
        (DecodeLimits(max_pixels=64 * 48 - 1), r"3071 pixels are allowed"),
    ],
)
def test_a_picture_beyond_the_limits_is_refused(limits: DecodeLimits, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        decode(jpeg(48, 64), 32, limits)


def test_a_header_that_promises_gigabytes_is_refused_before_they_are_allocated() -> None:
    data = bytearray(jpeg(48, 64))
    start = data.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    data[start + 5 : start + 9] = b"\xea\x60\xea\x60"
    with pytest.raises(FrameError, match="60000 x 60000"):
        decode(bytes(data), 416)
