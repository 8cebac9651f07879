"""Pictures for ticks: reads ahead, so that decoding does not eat the deadline."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from client.pacing import source_index
from client.sources import Picture, Recording

if TYPE_CHECKING:
    from client.sources.live import LiveSource

READ_AHEAD = 12
"""Pictures of a recording that are read before they are due, so that one slow picture delays nobody."""


class Feed(Protocol):
    """What a client shows its server."""

    async def prepare(self) -> Picture | None:
        """Make tick 0 cost no more than the others. Returns a picture to warm up with, or none."""
        ...

    def index(self, tick: int) -> int | None:
        """Number in the source of the picture of ``tick``, without reading it; ``None``: a camera cannot know."""
        ...

    async def take(self, tick: int) -> Picture | None:
        """The picture of ``tick``; ``None`` when the source has none for it.

        Raises:
            SourceError: the source cannot be read.
        """
        ...

    def length(self) -> int | None:
        """Ticks until the source has been shown once; ``None`` when it has no end."""
        ...

    async def close(self) -> None:
        """Free the source."""
        ...


class RecordedFeed:
    """Plays a recording at its own pace in time, sampled at the client's rate, again and again.

    Args:
        recording: read by one thread of its own.
        fps: nominal rate of the client.
    """

    def __init__(self, recording: Recording, fps: float) -> None:
        self._recording = recording
        self._fps = fps
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._ahead: dict[int, Future[Picture]] = {}

    def length(self) -> int | None:
        """See :meth:`Feed.length`."""
        frames, rate = self._recording.length, self._recording.rate_fps
        if frames is None:
            return None
        return frames if rate is None else max(1, round(frames * self._fps / rate))

    async def prepare(self) -> Picture:
        """See :meth:`Feed.prepare`."""
        self._read_on(0)
        pictures = await asyncio.gather(*map(asyncio.wrap_future, self._ahead.values()))
        return pictures[0]

    async def take(self, tick: int) -> Picture:
        """See :meth:`Feed.take`."""
        self._read_on(tick)
        reading = self._ahead[tick]
        # Read ahead, it usually is there: asking it directly spares the event loop a wake-up per picture.
        return reading.result() if reading.done() else await asyncio.wrap_future(reading)

    async def close(self) -> None:
        """See :meth:`Feed.close`."""
        for reading in self._ahead.values():
            reading.cancel()
        await asyncio.to_thread(self._reader.shutdown)
        self._recording.close()

    def index(self, tick: int) -> int:
        """See :meth:`Feed.index`."""
        index = source_index(tick, self._fps, self._recording.rate_fps)
        return index if self._recording.length is None else index % self._recording.length

    def _read_on(self, first: int) -> None:
        """Forget what is before tick ``first`` and have it and those after it read."""
        for tick in [tick for tick in self._ahead if tick < first]:
            self._ahead.pop(tick).cancel()
        for tick in range(first, first + 1 + READ_AHEAD):
            if tick not in self._ahead:
                self._ahead[tick] = self._read(tick)

    def _read(self, tick: int) -> Future[Picture]:
        index = self.index(tick)
        return self._reader.submit(lambda: Picture(index, self._recording.read(index)))


class LiveFeed:
    """A camera: each tick takes a frame that was not shown yet, waiting for one up to the tick's period."""

    def __init__(self, source: LiveSource, fps: float) -> None:
        self._source = source
        self._period_s = 1.0 / fps
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="source")

    async def prepare(self) -> Picture | None:
        """See :meth:`Feed.prepare`."""
        return await self.take(0)

    def index(self, tick: int) -> int | None:
        """See :meth:`Feed.index`."""
        return None

    def length(self) -> int | None:
        """A camera has no end."""
        return None

    async def take(self, tick: int) -> Picture | None:
        """See :meth:`Feed.take`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, self._source.take, self._period_s)

    async def close(self) -> None:
        """See :meth:`Feed.close`."""
        await asyncio.get_running_loop().run_in_executor(self._reader, self._source.close)
        self._reader.shutdown()
