"""Detections on the wire: the ``boxes`` of a ``Result``.

They are written as bytes, from whole arrays: an object per box takes longer than all the rest of a result.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages, varint
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.types import Detections

MAX_BOXES = 10_000
"""Boxes of one result that a reader accepts."""
_FIRST_NUMBER = 3
_BOX_BYTES = 2 + 5 * (1 + 4) + 2
"""One ``Result.boxes`` entry as bytes: its tag and length, five fixed32 fields and a one-byte varint."""


def pack(detections: Detections) -> messages.PackedDetections:
    """The boxes of a result as they go on the wire."""
    classes: list[int] = detections.classes.tolist()
    return messages.PackedDetections(len(classes), _write(detections, classes) if classes else b"")


def unpack(packed: messages.PackedDetections) -> Detections:
    """The inverse of :func:`pack`.

    Raises:
        ProtocolError: see :func:`read`.
    """
    return read(pb.Result.FromString(packed.data))


def read(result: pb.Result) -> Detections:
    """The boxes of a result.

    Raises:
        ProtocolError: too many, a number that is not finite, or a class beyond an int32; names the frame.
    """
    count = len(result.boxes)
    if count == 0:
        return Detections.empty()
    if count > MAX_BOXES:
        raise ProtocolError(f"result of frame {result.frame_id} has {count} boxes; at most {MAX_BOXES} are read")
    values = np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in result.boxes], np.float32)
    if not np.isfinite(values).all():
        raise ProtocolError(
            f"result of frame {result.frame_id} has a box with a coordinate or score that is not finite"
        )
    classes = np.array([b.class_id for b in result.boxes], np.int64)
    if classes.max() > np.iinfo(np.int32).max:
        raise ProtocolError(f"result of frame {result.frame_id} has a box of class {classes.max()}")
    return Detections(values[:, :4].copy(), values[:, 4].copy(), classes.astype(np.int32))


def _write(detections: Detections, classes: list[int]) -> bytes:
    count = len(classes)
    if min(classes) >= 0 and max(classes) < varint.CONTINUED:
        data = bytearray(_empty_boxes(count))
        numbers: NDArray[np.float32] = np.ndarray((count, 5), "<f4", data, _FIRST_NUMBER, (_BOX_BYTES, 5))
        numbers[:, :4] = detections.boxes
        numbers[:, 4] = detections.scores
        data[_BOX_BYTES - 1 :: _BOX_BYTES] = bytes(classes)
        return bytes(data)
    values = zip(detections.boxes.tolist(), detections.scores.tolist(), classes, strict=True)
    wire = pb.Result(
        boxes=[
            pb.Box(x1=x1, y1=y1, x2=x2, y2=y2, score=score, class_id=class_id)
            for (x1, y1, x2, y2), score, class_id in values
        ]
    )
    return bytes(wire.SerializeToString())


@lru_cache(maxsize=512)
def _empty_boxes(count: int) -> bytes:
    """``count`` boxes with all but their values."""
    numbers = b"".join(bytes([number << 3 | 5, 0, 0, 0, 0]) for number in range(1, 6))
    return (bytes([4 << 3 | 2, _BOX_BYTES - 2]) + numbers + bytes([6 << 3, 0])) * count
