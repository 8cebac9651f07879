"""The life of a client's frames: tick, picture, choice, encoding, stream, record."""

from __future__ import annotations

import asyncio

from client.encoding import FrameEncoder
from client.feed import Feed
from client.pacing import Pacer, Schedule
from client.progress import Progress
from client.records import Records
from client.sources import Picture
from client.stopping import StopRequest
from moonjelly.clock import Clock
from moonjelly.errors import ConnectionLostError, FrameError
from moonjelly.sdk import AsyncClient, FrameResult, Withheld
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant

MAX_ENCODING = 2
"""Frames at the encoder; with more, it is the bottleneck and a queue there would only make frames late."""


class Streamer:
    """Streams one feed through one connected client.

    Args:
        client: connected.
        feed: pictures for ticks.
        encoder: pictures to JPEG.
        records: takes every frame's outcome.
        progress: counts for status lines and ``fps.csv``.
        clock: the one that ``client`` runs on.
    """

    def __init__(
        self,
        client: AsyncClient,
        feed: Feed,
        encoder: FrameEncoder,
        records: Records,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._client = client
        self._feed = feed
        self._encoder = encoder
        self._records = records
        self._progress = progress
        self._clock = clock
        self._encoding = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None

    async def run(self, schedule: Schedule, stop: StopRequest) -> None:
        """Capture every tick of ``schedule`` until its end or ``stop``, then wait for the last outcomes.

        Raises:
            SourceError: the source failed.
            ConnectionLostError: the server did not come back.
        """
        pacer = Pacer(schedule, self._clock)
        try:
            while not pacer.finished and not await stop.within(pacer.wait_s()):
                ticks = pacer.due()
                for missed in ticks[:-1]:
                    self._skip(
                        schedule.instant(missed), "the client fell behind its nominal rate", self._feed.index(missed)
                    )
                if ticks:
                    await self._capture(ticks[-1], schedule.instant(ticks[-1]))
                if self._fault is not None:
                    raise self._fault
        finally:
            # Each frame ends by its answer or by the session's own deadline: no time-out of our own.
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._fault is not None and not isinstance(self._fault, ConnectionLostError):
            raise self._fault  # of the last frames; that the server has gone after them is none

    async def _capture(self, tick: int, instant: ClientInstant) -> None:
        picture = await self._feed.take(tick)
        if picture is None:
            self._skip(instant, "the source had no new frame", None)
            return
        captured = instant if picture.captured is None else picture.captured
        if self._encoding >= MAX_ENCODING:
            self._skip(captured, "the encoder is behind", picture.index)
            return
        task = asyncio.create_task(self._send(picture, captured))
        self._tasks.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._fault = self._fault or task.exception()

    async def _send(self, picture: Picture, captured: ClientInstant) -> None:
        self._progress.captured()
        try:
            choice = await self._client.chosen(captured)
            if isinstance(choice, Withheld):
                self._end(self._client.withhold(choice, captured), picture)
                return
            size = self._client.zoo.variants[choice.variant].input_size
            self._encoding += 1
            try:
                encoded = await self._encoder.encode(picture, size, choice.variant, choice.jpeg_quality)
            finally:
                self._encoding -= 1
            self._end(await self._client.submit(encoded, captured), picture)
        except FrameError as fault:
            self._end(self._client.withhold(Withheld(Outcome.FAILED, str(fault)), captured), picture)
        except ConnectionLostError as fault:
            self._fault = self._fault or fault
            self._end(self._client.skip(captured, "the client has lost its server for good"), picture)

    def _skip(self, captured: ClientInstant, reason: str, source_frame: int | None) -> None:
        self._progress.captured()
        result = self._client.skip(captured, reason)
        self._progress.ended(result)
        self._records.frame(result, source_frame, None)

    def _end(self, result: FrameResult, picture: Picture) -> None:
        self._progress.ended(result)
        height, width = picture.rgb.shape[:2]
        self._records.frame(result, picture.index, (width, height))
