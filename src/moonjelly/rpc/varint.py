"""Protobuf's variable-length numbers (its encoding guide): seven bits a byte, the lowest first."""

from __future__ import annotations

CONTINUED = 128
"""A byte of at least this is followed by another; a number below it is one byte."""


def read(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, of at most 35 bits, and where it ends."""
    value = shift = 0
    while data[at] >= CONTINUED and shift < 28:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | data[at] << shift, at + 1


def write(value: int) -> bytes:
    """A number that is not negative."""
    if value < CONTINUED:
        return bytes((value,))
    data = bytearray()
    while value >= CONTINUED:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
