"""The Darknet ``.weights`` format: bytes to named arrays and back.

Layout (AlexeyAB/darknet, ``src/parser.c``): three little-endian int32 (major, minor, revision), the number of images
seen in training (uint64 since version 0.2, uint32 before), then float32 only. Per ``[convolutional]`` section: biases;
with batch normalisation scales, rolling means and rolling variances; then the kernel ``(filters, in / groups, k, k)``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import ModelError
from moonjelly.models.definition import Convolutional, NetworkConfig

_VERSION = struct.Struct("<iii")
_SEEN = struct.Struct("<Q")
_SEEN_BEFORE_0_2 = struct.Struct("<I")
_FLOAT = np.dtype("<f4")

ConvolutionArrays = Mapping[str, NDArray[np.float32]]
"""``bias`` and ``weight``, with batch normalisation also ``scale``, ``mean`` and ``variance``."""


@dataclass(frozen=True, slots=True)
class Header:
    """Head of a weights file; ``seen`` counts training images."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0


def parameter_shapes(section: Convolutional) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a section's arrays, in file order."""
    kernel = (section.filters, section.in_channels // section.groups, section.size, section.size)
    vectors = ("bias", "scale", "mean", "variance") if section.batch_normalize else ("bias",)
    return {**dict.fromkeys(vectors, (section.filters,)), "weight": kernel}


def expected_floats(config: NetworkConfig) -> int:
    """Floats in a weights file of this network."""
    return sum(math.prod(shape) for section in config.convolutions for shape in parameter_shapes(section).values())


def decode_header(data: bytes) -> tuple[Header, int]:
    """The header and its length in bytes.

    Raises:
        ModelError: the data ends within the header.
    """
    if len(data) < _VERSION.size:
        raise ModelError(f"the weights end after {len(data)} bytes, within the header; fetch the file again")
    major, minor, revision = _VERSION.unpack_from(data)
    seen = _SEEN if major * 10 + minor >= 2 else _SEEN_BEFORE_0_2
    length = _VERSION.size + seen.size
    if len(data) < length:
        raise ModelError(f"the weights end after {len(data)} bytes, within the header; fetch the file again")
    return Header(major, minor, revision, seen.unpack_from(data, _VERSION.size)[0]), length


def decode_weights(config: NetworkConfig, data: bytes) -> tuple[Header, list[ConvolutionArrays]]:
    """Cut the content of a weights file into arrays.

    Returns:
        The header, and per :attr:`~NetworkConfig.convolutions` its read-only arrays, which share ``data``'s memory.

    Raises:
        ModelError: floats are missing or left over, or some are not finite.
    """
    header, offset = decode_header(data)
    expected = expected_floats(config)
    size = offset + expected * _FLOAT.itemsize
    if len(data) != size:
        difference = (len(data) - size) / _FLOAT.itemsize
        fault = f"{-difference:g} floats are missing" if difference < 0 else f"{difference:g} floats are left over"
        raise ModelError(
            f"the weights have {len(data)} bytes but the network needs {size} ({expected} floats after a header of "
            f"{offset} bytes): {fault}; use the weights that belong to this definition, and fetch them whole"
        )
    floats = np.frombuffer(data, _FLOAT, offset=offset)
    arrays: list[ConvolutionArrays] = []
    position = 0
    for section in config.convolutions:
        named: dict[str, NDArray[np.float32]] = {}
        for name, shape in parameter_shapes(section).items():
            values = floats[position : position + math.prod(shape)]
            position += values.size
            if not np.isfinite(values).all():
                raise ModelError(f"section {section.number} [convolutional]: '{name}' has values that are not finite")
            named[name] = values.reshape(shape)
        arrays.append(named)
    return header, arrays


def encode_weights(config: NetworkConfig, arrays: Sequence[ConvolutionArrays], header: Header) -> bytes:
    """The content of a weights file; inverse of :func:`decode_weights`.

    Raises:
        ModelError: an array is missing or has another shape than the network's.
    """
    if header.major * 10 + header.minor < 2:
        header = Header(seen=header.seen)
    parts = [_VERSION.pack(header.major, header.minor, header.revision), _SEEN.pack(header.seen)]
    for section, named in zip(config.convolutions, arrays, strict=True):
        for name, shape in parameter_shapes(section).items():
            if name not in named or named[name].shape != shape:
                found = named[name].shape if name in named else "nothing"
                raise ModelError(f"section {section.number} [convolutional]: '{name}' is {found}, it must be {shape}")
            parts.append(np.ascontiguousarray(named[name], _FLOAT).tobytes())
    return b"".join(parts)
