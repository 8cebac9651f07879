"""Whatever bytes arrive, decoding gives a square picture or a FrameError."""

from __future__ import annotations

import numpy as np
import simplejpeg
from hypothesis import assume, given
from hypothesis import strategies as st

from moonjelly.errors import FrameError
from moonjelly.inference.preprocess import announced, decode, header

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


_HEADER_BYTES = _JPEG.index(b"\xff\xda")


@given(
    st.lists(
        st.tuples(
            st.integers(2, _HEADER_BYTES), st.binary(max_size=4) | st.sampled_from([b"\xff", b"\xff\xd0", b"\xff\x01"])
        ),
        max_size=3,
    ),
    st.booleans(),
)
def test_a_picture_announces_the_size_that_its_decoder_reads(damage: list[tuple[int, bytes]], inserted: bool) -> None:
    data = bytearray(_JPEG)
    for place, piece in damage:
        data[place : place if inserted else place + len(piece)] = piece
    try:
        quick, read = announced(bytes(data)), header(bytes(data))
    except FrameError:
        assume(damage)  # either may refuse what is damaged
    else:
        assert quick == read


@given(st.integers(0, len(_JPEG) - 1))
def test_a_picture_that_ends_early(length: int) -> None:
    decodes_or_refuses(_JPEG[:length])
