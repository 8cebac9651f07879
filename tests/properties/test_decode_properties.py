"""Whatever bytes arrive, decoding gives a square picture or a FrameError."""

from __future__ import annotations

import numpy as np
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.errors import FrameError
from moonjelly.inference.preprocess import decode

_JPEG = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), quality=80)


def decodes_or_refuses(data: bytes) -> None:
    try:
        picture = decode(data, 64)
    except FrameError:
        return
    assert picture.shape == (64, 64, 3)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    decodes_or_refuses(data)


@given(st.lists(st.tuples(st.integers(0, len(_JPEG) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_damaged_picture(damage: list[tuple[int, int]]) -> None:
    data = bytearray(_JPEG)
    for place, value in damage:
        data[place] = value
    decodes_or_refuses(bytes(data))


@given(st.integers(0, len(_JPEG) - 1))
def test_a_picture_that_ends_early(length: int) -> None:
    decodes_or_refuses(_JPEG[:length])
