"""Frames that wait at one device, by deadline and by arrival.

Invariant: ``_order`` holds exactly one ``(deadline_ns, key)`` pair per frame of ``_frames``, sorted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec


class QueuedFrame(msgspec.Struct, frozen=True):
    """A frame that is ready to run.

    Attributes:
        key: unique among the frames that wait.
        deadline_ns: instant on the server's clock by which the batch that holds it must have ended, so that its answer
            is with the client in time: the end-to-end deadline less the expected downlink and answering time.
        arrived_ns: instant on the server's clock at which it entered the queue.
        stream: session that sent it.
    """

    key: int
    deadline_ns: int
    arrived_ns: int
    stream: int = 0


class DeadlineQueue:
    """Frames ordered by deadline (ties by key) that also remembers the order of arrival."""

    def __init__(self, frames: Iterable[QueuedFrame] = ()) -> None:
        self._order: list[tuple[int, int]] = []
        self._frames: dict[int, QueuedFrame] = {}
        for frame in frames:
            self.push(frame)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[QueuedFrame]:
        return (self._frames[key] for _, key in self._order)

    def push(self, frame: QueuedFrame) -> None:
        """Add a frame.

        Raises:
            ValueError: its key is in the queue already.
        """
        if frame.key in self._frames:
            raise ValueError(f"frame {frame.key} is in the queue already")
        self._frames[frame.key] = frame
        insort(self._order, (frame.deadline_ns, frame.key))

    def take(self, frames: Iterable[QueuedFrame]) -> None:
        """Remove frames.

        Raises:
            KeyError: one of them is not in the queue.
        """
        for frame in frames:
            del self._frames[frame.key]
            del self._order[bisect_left(self._order, (frame.deadline_ns, frame.key))]

    def discard_stream(self, stream: int) -> list[QueuedFrame]:
        """Remove and return every frame of a session that went away."""
        gone = [frame for frame in self if frame.stream == stream]
        self.take(gone)
        return gone

    def head(self) -> QueuedFrame | None:
        """The frame with the earliest deadline."""
        return self._frames[self._order[0][1]] if self._order else None

    def earliest(self, count: int, skip: int = 0) -> tuple[QueuedFrame, ...]:
        """Up to ``count`` frames by deadline, after the ``skip`` most urgent ones."""
        return tuple([self._frames[key] for _, key in self._order[skip : skip + count]])

    def deadlines_ns(self, count: int) -> list[int]:
        """The ``count`` earliest deadlines, ascending."""
        return [deadline_ns for deadline_ns, _ in self._order[:count]]

    def due_before(self, instant_ns: int) -> tuple[QueuedFrame, ...]:
        """Frames whose deadline is strictly before ``instant_ns``."""
        if not self._order or self._order[0][0] >= instant_ns:
            return ()
        return self.earliest(bisect_left(self._order, (instant_ns, -1)))

    def arrivals(self, count: int | None = None) -> tuple[QueuedFrame, ...]:
        """Up to ``count`` frames, oldest arrival first."""
        return tuple(islice(self._frames.values(), count))
