"""The size that a JPEG announces, read from its markers (ITU-T T.81, annex B) without setting up a decoder.

Every frame is asked for it on its way to a device, and a decoder that is set up for two numbers takes ten times as
long. Whoever decodes asks the decoder itself: these bytes come from anybody.
"""

from __future__ import annotations

_START = b"\xff\xd8"
_PREFIX = 0xFF
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15; the codes left out stand for tables and an extension."""
_SEGMENTS = frozenset({0xC4, 0xCC, *range(0xDB, 0xF0), 0xFE})
"""What may stand before the frame header: tables, application data, comments. Each is followed by its length."""


def size(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height in pixels; nothing beyond the frame header is looked at.

    Raises:
        ValueError: there is no frame header; says what is there instead.
    """
    if data[:2] != _START:
        raise ValueError("it does not begin as one")
    at = 2
    try:
        while True:
            if data[at] != _PREFIX:
                raise ValueError(f"byte {at} should begin a marker and is {data[at]}")
            code = data[at + 1]
            if code in _FRAME_HEADERS:
                return data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
            if code in _SEGMENTS:
                at += 2 + (data[at + 2] << 8 | data[at + 3])
            elif code == _PREFIX:
                at += 1  # any number of them may stand before a marker
            else:
                raise ValueError(f"marker {code:#x} stands before its size")
    except IndexError:
        raise ValueError("it ends before its size") from None
