from __future__ import annotations

import asyncio

import numpy as np
import simplejpeg

from client.encoding import LiveEncoder, Padded
from client.sources import Picture
from moonjelly.network import prior_bytes


def test_padded_frames_are_as_large_as_the_table_says_and_decode_the_same() -> None:
    picture = Picture(0, np.full((120, 160, 3), (10, 120, 200), np.uint8))
    plain, encoder = LiveEncoder(), Padded(LiveEncoder())
    small = asyncio.run(plain.encode(picture, 96, 0, 90))
    large = asyncio.run(encoder.encode(picture, 96, 0, 90))
    plain.close()
    encoder.close()
    assert len(large.data) == round(prior_bytes(96)) > len(small.data)
    assert np.array_equal(simplejpeg.decode_jpeg(large.data), simplejpeg.decode_jpeg(small.data))


def test_what_is_larger_than_the_table_stays_whole() -> None:
    picture = Picture(0, np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    plain, encoder = LiveEncoder(), Padded(LiveEncoder())
    small = asyncio.run(plain.encode(picture, 256, 0, 90))
    assert len(small.data) > prior_bytes(256)
    assert asyncio.run(encoder.encode(picture, 256, 0, 90)).data == small.data
    plain.close()
    encoder.close()
