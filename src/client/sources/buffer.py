"""What happens to frames that arrive faster than they are taken."""

from __future__ import annotations

import enum
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.units import ClientInstant


class BufferStrategy(enum.Enum):
    """Named as users of live sources know them; default for live sources: ``latest``."""

    LATEST = "latest"
    """Only the newest frame is kept."""
    DROP_OLDEST = "drop-oldest"
    """A short queue; when it is full its oldest frame goes."""
    DROP_LATEST = "drop-latest"
    """A short queue; when it is full the frame that arrives goes."""
    WAIT = "wait"
    """A short queue; when it is full the reader waits (and a live stream falls behind)."""


QUEUE_FRAMES = 8
"""Frames in a short queue."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """One frame of a source.

    Attributes:
        index: its number in the source.
        rgb: ``(height, width, 3)`` uint8.
        captured: when a live source delivered it; ``None``: at its nominal tick.
    """

    index: int
    rgb: NDArray[np.uint8]
    captured: ClientInstant | None = None


class FrameBuffer:
    """Between a source's reader thread and the stream. Thread-safe."""

    def __init__(self, strategy: BufferStrategy) -> None:
        self._strategy = strategy
        self._capacity = 1 if strategy is BufferStrategy.LATEST else QUEUE_FRAMES
        self._queue: deque[Picture] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Frames that nobody took."""
        return self._dropped

    def put(self, picture: Picture) -> None:
        """Add a frame, or drop one, or wait, as the strategy says."""
        with self._changed:
            if self._strategy is BufferStrategy.WAIT:
                self._changed.wait_for(lambda: self._closed or len(self._queue) < self._capacity)
            elif len(self._queue) >= self._capacity:
                self._dropped += 1
                if self._strategy is BufferStrategy.DROP_LATEST:
                    return
                self._queue.popleft()
            if not self._closed:
                self._queue.append(picture)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Picture | None:
        """The oldest frame kept; ``None`` when none came in time or the source has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._queue), timeout_s)
            picture = self._queue.popleft() if self._queue else None
            self._changed.notify_all()
            return picture

    def close(self) -> None:
        """Let everybody go who waits. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
