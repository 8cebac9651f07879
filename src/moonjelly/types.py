"""Domain types that several nouns share."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_GROUP = "default"
"""The model group of a client that names none."""


class Outcome(enum.Enum):
    """How a captured frame ended. Every captured frame ends in exactly one of these."""

    ON_TIME = "ON_TIME"
    """Answered with detections within its deadline, judged on the client's clock."""
    LATE = "LATE"
    """Answered with detections after its deadline."""
    SKIPPED = "SKIPPED"
    """Not sent: the client saw that it could not arrive in time."""
    REJECTED = "REJECTED"
    """The client has no place in the plan."""
    DROPPED = "DROPPED"
    """The server saw that it could not be answered in time."""
    LOST = "LOST"
    """The link took it, or its answer."""
    FAILED = "FAILED"
    """It could not be decoded, or the executor died with it."""

    __hash__ = object.__hash__  # by identity, in C; the enumeration's own hashes the name in Python, thrice per frame

    @property
    def is_miss(self) -> bool:
        """All but ``ON_TIME``."""
        return self is not Outcome.ON_TIME


@dataclass(frozen=True, slots=True)
class Variant:
    """One entry of a zoo: a model at an input size and a precision.

    Attributes:
        name: unique in its zoo.
        model: name of the model in the repository.
        input_size: side of the square input in pixels, a multiple of the model's stride.
        precision: ``fp32`` or ``fp16``.
    """

    name: str
    model: str
    input_size: int
    precision: str = "fp32"


@dataclass(frozen=True, eq=False, slots=True)
class Detections:
    """Boxes of one frame.

    Attributes:
        boxes: ``(n, 4)`` float32, ``x1 y1 x2 y2`` as fractions of the frame's width and height.
        scores: ``(n,)`` float32 in [0, 1], descending.
        classes: ``(n,)`` int32 indices into the model's class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]

    @staticmethod
    def empty() -> Detections:
        """No boxes."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), np.zeros((0,), np.int32))

    def __len__(self) -> int:
        return len(self.scores)
