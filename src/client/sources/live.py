"""Live sources through PyAV: RTSP and other network streams, webcams.

A reader thread takes frames as they come, stamps them and fills a buffer. When the source fails it is opened again
with a bounded back-off, without limit of time: a camera that was unplugged comes back by itself.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np

from client.sources.buffer import BufferStrategy, FrameBuffer, Picture
from moonjelly.backoff import Backoff
from moonjelly.clock import Clock, MonotonicClock
from moonjelly.errors import SourceError, cause
from moonjelly.units import NS_PER_S, ClientInstant

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
DEFAULT_RATE_FPS = 30.0
"""For cameras that do not say theirs."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """Running counts of one live source.

    Attributes:
        received: frames decoded.
        dropped: frames that the buffer gave up.
        reconnects: times it was opened again.
        last_fault: why, the last time; empty: never.
    """

    received: int = 0
    dropped: int = 0
    reconnects: int = 0
    last_fault: str = ""


class LiveSource:
    """A camera.

    Args:
        name: ``rtsp://...``, another URL that FFmpeg reads, or ``/dev/videoN``.
        strategy: what happens to frames that are not taken in time.
        options: passed to FFmpeg.
        container_format: FFmpeg's name where it cannot be guessed.
        backoff: between attempts to open it again.
        clock: stamps frames; monotonic.

    Raises:
        SourceError: it cannot be opened the first time; names it and the reason.
    """

    def __init__(
        self,
        name: str,
        strategy: BufferStrategy = BufferStrategy.LATEST,
        *,
        options: dict[str, str] | None = None,
        container_format: str | None = None,
        backoff: Backoff = Backoff(first_s=0.5, limit_s=10.0),  # noqa: B008 - frozen
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._options = {"rtsp_transport": "tcp", **(options or {})} if name.startswith("rtsp") else options or {}
        self._format = container_format or ("v4l2" if name.startswith("/dev/video") else None)
        self._backoff = backoff
        self._clock: Clock = clock or MonotonicClock()
        self._buffer = FrameBuffer(strategy)
        self._statistics = SourceStatistics()
        self._stop = threading.Event()
        container = self._open()
        rate = container.streams.video[0].average_rate
        self.rate_fps = float(rate) if rate else DEFAULT_RATE_FPS
        self._thread = threading.Thread(target=self._run, args=(container,), name=f"source {name}", daemon=True)
        self._thread.start()

    @property
    def statistics(self) -> SourceStatistics:
        """Counts so far."""
        return replace(self._statistics, dropped=self._buffer.dropped)

    def take(self, timeout_s: float) -> Picture | None:
        """The next frame that the strategy kept; ``None`` when none came in time. Blocks."""
        return self._buffer.take(timeout_s)

    def close(self) -> None:
        """Stop reading. A reader that waits for a silent camera ends by its own time-out, unwaited for. Idempotent."""
        self._stop.set()
        self._buffer.close()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _open(self) -> Any:
        began_ns = self._clock.now_ns()
        try:
            container = av.open(
                self.name, format=self._format, options=self._options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S)
            )
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            # What FFmpeg says when our time-out interrupts it depends on what it was doing.
            silent = self._clock.now_ns() - began_ns >= OPEN_TIMEOUT_S * NS_PER_S
            why = f"no answer within {OPEN_TIMEOUT_S:g} s" if silent else cause(fault)
            raise SourceError(f"source {self.name} cannot be opened: {why}") from None
        if not container.streams.video:
            container.close()
            raise SourceError(f"source {self.name} has no video stream")
        return container

    def _run(self, container: Any) -> None:
        random = np.random.default_rng()
        backoff = self._backoff
        while True:
            before = self._statistics.received
            fault = self._read_all(container)
            if self._stop.is_set():
                return
            if self._statistics.received > before:
                backoff = self._backoff
            container = None
            while container is None:
                backoff = backoff.failed()
                self._statistics = replace(
                    self._statistics, reconnects=self._statistics.reconnects + 1, last_fault=fault
                )
                _log.warning("source %s: %s; opening it again", self.name, fault)
                if self._stop.wait(backoff.delay_s(random.random())):
                    return
                try:
                    container = self._open()
                except SourceError as again:
                    fault = str(again)

    def _read_all(self, container: Any) -> str:
        """Decode until the source fails; why."""
        try:
            with container:
                for frame in container.decode(video=0):
                    if self._stop.is_set():
                        return "stopped"
                    captured = ClientInstant(self._clock.now_ns())
                    index = self._statistics.received
                    self._buffer.put(Picture(index, frame.to_ndarray(format="rgb24"), captured))
                    self._statistics = replace(self._statistics, received=index + 1)
        except av.error.ExitError:
            return f"it showed nothing for {READ_TIMEOUT_S:g} s"
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            return str(fault)
        return "the stream ended"
