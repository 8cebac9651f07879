"""The weights format, and the float counts of the networks that users bring."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from moonjelly.errors import ModelError
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.weights import Header, decode_header, decode_weights, encode_weights, expected_floats

CONFIG = parse_cfg(
    "[net]\nwidth=32\nheight=32\n[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nstride=2\n"
    "activation=leaky\n[convolutional]\nfilters=6\n[yolo]\nanchors=4,4\nclasses=1\n"
)
FLOATS = 4 * 4 + 4 * 3 * 9 + 6 + 6 * 4


def content(floats: int = FLOATS, header: bytes = struct.pack("<iiiQ", 0, 2, 5, 64)) -> bytes:
    return header + np.arange(floats, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("path", "floats"),
    [
        ("models/darknet/yolov4.cfg", 64_429_405),
        ("models/darknet/yolov4-tiny.cfg", 6_062_814),
        ("models/yolo-fastest-1.1/yolo-fastest-1.1.cfg", 346_062),
        ("models/yolo-fastest-1.1/yolo-fastest-1.1-xl.cfg", 923_486),
    ],
)
def test_published_networks_need_their_published_counts(data_dir: Path, path: str, floats: int) -> None:
    config = parse_cfg((data_dir / path).read_text())
    assert expected_floats(config) == floats
    assert config.stride == 32


def test_arrays_lie_in_darknets_order() -> None:
    header, (first, second) = decode_weights(CONFIG, content())
    assert header == Header(0, 2, 5, 64)
    assert first["bias"].tolist() == [0, 1, 2, 3]
    assert first["scale"].tolist() == [4, 5, 6, 7]
    assert first["mean"].tolist() == [8, 9, 10, 11]
    assert first["variance"].tolist() == [12, 13, 14, 15]
    assert first["weight"].shape == (4, 3, 3, 3)
    assert first["weight"].ravel()[0] == 16
    assert set(second) == {"bias", "weight"}
    assert second["weight"].ravel()[-1] == FLOATS - 1


def test_encoding_is_the_inverse_of_decoding() -> None:
    header, arrays = decode_weights(CONFIG, content())
    assert encode_weights(CONFIG, arrays, header) == content()


def test_files_before_version_0_2_have_a_shorter_header() -> None:
    old = struct.pack("<iiiI", 0, 1, 0, 32)
    assert decode_header(old) == (Header(0, 1, 0, 32), 16)
    header, arrays = decode_weights(CONFIG, content(header=old))
    assert decode_weights(CONFIG, encode_weights(CONFIG, arrays, header))[0] == Header(0, 2, 5, 32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"end after 0 bytes, within the header; fetch the file again"),
        (content()[:18], r"end after 18 bytes, within the header"),
        (content(FLOATS - 3), r"3 floats are missing; use the weights that belong to this definition"),
        (content()[:-2], r"0\.5 floats are missing"),
        (content(FLOATS + 7), r"7 floats are left over"),
    ],
)
def test_a_file_of_another_length_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        decode_weights(CONFIG, data)


def test_values_that_are_not_finite_are_refused() -> None:
    data = bytearray(content())
    data[20 + 8 * 4 : 20 + 9 * 4] = struct.pack("<f", float("nan"))
    with pytest.raises(ModelError, match=r"section 0 \[convolutional\]: 'mean' has values that are not finite"):
        decode_weights(CONFIG, bytes(data))


def test_arrays_of_another_shape_are_not_written() -> None:
    header, arrays = decode_weights(CONFIG, content())
    broken = [arrays[0], {**arrays[1], "bias": np.zeros(5, np.float32)}]
    with pytest.raises(ModelError, match=r"section 1 \[convolutional\]: 'bias' is \(5,\), it must be \(6,\)"):
        encode_weights(CONFIG, broken, header)
