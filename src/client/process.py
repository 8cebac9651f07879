"""One client process: connects, says that it is ready, streams, and leaves complete logs behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from client.config import Camera, ClientOptions
from client.encoding import EncodedOnce, FrameEncoder, LiveEncoder, Padded
from client.feed import Feed, LiveFeed, RecordedFeed
from client.pacing import Schedule, tick_count
from client.progress import LineWriter, Progress, Show, progress_line
from client.records import WRITE_EVERY_S, Records
from client.sources import (
    DrawnScene,
    InMemory,
    Picture,
    Recording,
    is_live,
    open_drawn_scene,
    open_live,
    open_recording,
)
from client.stopping import StopRequest
from client.streamer import Streamer
from moonjelly.clock import MonotonicClock
from moonjelly.errors import ConfigError
from moonjelly.network import DEFAULT_QUALITY
from moonjelly.pipe import at_end_of
from moonjelly.sdk import AsyncClient, ConnectionState, Statistics
from moonjelly.sdk.sync import new_event_loop
from moonjelly.summary import ClientInfo, summarise, write_summary
from moonjelly.telemetry import SCHEMA_VERSION, FrameRow, read_rows
from moonjelly.units import NS_PER_S, ClientInstant
from moonjelly.version import __version__

PICTURE_RATE_FPS = 10.0
"""Nominal rate for pictures without time of their own."""
LEAD_NS = 20_000_000
"""Between the start signal and the first tick."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Inherited file descriptors; ``None``: not given.

    Attributes:
        ready: takes one JSON line once the client is registered.
        start: the first frame waits for a line, or the end, of this.
        status: takes one JSON line per second.
        lifeline: its end means that the parent is gone.
    """

    ready: int | None = None
    start: int | None = None
    status: int | None = None
    lifeline: int | None = None


def run(options: ClientOptions, descriptors: Descriptors, show: Show) -> int:
    """Stream as ``options`` say, until done or stopped by SIGTERM or SIGINT; the exit status.

    Args:
        options: for one client.
        descriptors: inherited.
        show: told of the progress, in words.

    Raises:
        SourceError, ConnectionLostError, SessionError, ConfigError: see their texts.
    """
    cv2.setNumThreads(1)  # several clients share a host
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a lost connection is told in our words
    loop = new_event_loop()
    try:
        return loop.run_until_complete(_Process(options, descriptors, show).run())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class _Process:
    def __init__(self, options: ClientOptions, descriptors: Descriptors, show: Show) -> None:
        self._show = show
        self._options = options
        self._camera = options.camera(0)
        self._descriptors = descriptors
        self._clock = MonotonicClock()
        self._stop = StopRequest()
        self._troubled = False

    async def run(self) -> int:
        self._stop.listen(self._descriptors.lifeline)
        recording, feed, fps = await asyncio.to_thread(_open, self._options, self._camera)
        client = self._connection(fps)
        try:
            if await self._drawn(recording, feed, fps) and await self._stop.before(client.connect()):
                await self._stream(client, recording, feed, fps)
        finally:
            await client.close()
            await feed.close()
        if client.statistics.captured:
            self._summarise(fps)
            print(f"{self._camera.name}: {final_line(client.statistics)}")
        return self._stop.exit_status

    def _connection(self, fps: float) -> AsyncClient:
        options = self._options
        return AsyncClient(
            options.server,
            slo_ms=self._camera.slo_ms,
            fps=fps,
            name=self._camera.name,
            group=options.group,
            token=options.token,
            root_certificates=options.root_certificates,
            register_timeout_s=options.register_timeout_s,
            reconnect_s=options.reconnect_s,
            congestion_control=options.congestion_control,
            clock=self._clock,
            on_state=self._on_state,
        )

    async def _drawn(self, recording: Recording | None, feed: Feed, fps: float) -> bool:
        """Draw what will be shown of a scene that is drawn beforehand; false when told to stop meanwhile."""
        if not isinstance(recording, DrawnScene):
            return True
        counts = [count for count in (feed.length(), tick_count(self._options.seconds, fps)) if count is not None]
        indices = [index for tick in range(min(counts)) if (index := feed.index(tick)) is not None]
        for done, index in enumerate(indices):
            if self._stop.event.is_set():
                return False
            self._show(f"{self._camera.name}: {done} of {len(indices)} pictures of {recording.name} drawn")
            await asyncio.to_thread(recording.draw, index)
        return True

    async def _stream(self, client: AsyncClient, recording: Recording | None, feed: Feed, fps: float) -> None:
        encoder: FrameEncoder = Padded(LiveEncoder()) if self._options.padded else LiveEncoder()
        if self._options.pre_encoded and recording is not None:
            encoder = EncodedOnce(encoder)
            await _encode_beforehand(client, recording, encoder)
        await _warm(client, feed, encoder)
        records = Records(self._options.out, self._camera.client_id, self._camera.slo_ms, len(client.zoo.classes))
        progress = Progress(self._camera.client_id)
        try:
            self._write_settings(client, fps)
            await self._announce(client)
            schedule = self._schedule(feed, fps)
            tasks = (
                asyncio.create_task(self._tell(client, records, progress, schedule)),
                asyncio.create_task(_keep_writing(records)),
            )
            try:
                await Streamer(client, feed, encoder, records, progress, self._clock).run(schedule, self._stop)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                records.second(progress.second(self._clock.now_ns()))
        finally:
            encoder.close()
            records.close()

    def _schedule(self, feed: Feed, fps: float) -> Schedule:
        """From now, at a phase of this client's own: cameras do not tick together."""
        share = np.random.default_rng((self._options.seed, self._camera.client_id)).random()
        start = ClientInstant(self._clock.now_ns() + LEAD_NS + round(share * NS_PER_S / fps))
        counts = [tick_count(self._options.seconds, fps), None if self._options.loop else feed.length()]
        return Schedule(start, fps, min((count for count in counts if count is not None), default=None))

    async def _announce(self, client: AsyncClient) -> None:
        if self._descriptors.ready is not None:
            ready = LineWriter(self._descriptors.ready)
            ready.write({"client_id": self._camera.client_id, "pid": os.getpid(), "session_id": client.session_id})
            ready.close()
        if self._descriptors.start is not None:
            started = asyncio.Event()
            at_end_of(self._descriptors.start, started.set, line_suffices=True)
            await self._stop.before(started.wait())

    async def _tell(self, client: AsyncClient, records: Records, progress: Progress, schedule: Schedule) -> None:
        lines = LineWriter(self._descriptors.status) if self._descriptors.status is not None else None
        second = 1
        try:
            while True:
                due = schedule.start + second * NS_PER_S
                await asyncio.sleep(max(0, due - self._clock.now_ns()) / NS_PER_S)
                row = progress.second(self._clock.now_ns())
                records.second(row)
                status = progress.status(client, row, second)
                self._show(progress_line([status]))
                if lines is not None:
                    lines.write(status)
                second += 1
        finally:
            if lines is not None:
                lines.close()

    def _write_settings(self, client: AsyncClient, fps: float) -> None:
        settings = {
            "schema_version": SCHEMA_VERSION,
            **asdict(self._camera),
            "fps": fps,
            "zoo": client.zoo.name,
            "group": client.zoo.group,
            "classes": list(client.zoo.classes),
            "session_id": client.session_id,
        }
        path = self._options.out / "client.json"
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _summarise(self, fps: float) -> None:
        info = ClientInfo(self._camera.slo_ms, fps, self._camera.name)
        write_client_summary(self._options.out, {self._camera.client_id: info}, [self._options.out])

    def _on_state(self, state: ConnectionState, reason: str) -> None:
        self._troubled |= state in (ConnectionState.RECONNECTING, ConnectionState.DRAINING)
        level = logging.WARNING if self._troubled else logging.INFO
        _log.log(level, "%s: %s: %s", self._camera.name, state.value, reason)
        self._troubled &= state is not ConnectionState.READY


def write_client_summary(out: Path, clients: dict[int, ClientInfo], directories: list[Path]) -> None:
    """``summary.json`` of the clients whose ``frame_stats.csv`` lie in ``directories``."""
    logs = [directory / "frame_stats.csv" for directory in directories]
    rows = [row for log in logs if log.exists() for row in read_rows(log, FrameRow)]
    versions = {"moonjelly": __version__, "python": platform.python_version()}
    summary = summarise(rows, (), clients=clients, versions=versions, machine={"system": platform.platform()})
    write_summary(out / "summary.json", summary)


def _open(options: ClientOptions, camera: Camera) -> tuple[Recording | None, Feed, float]:
    if options.scene_seconds is None and is_live(camera.source):
        if options.pre_encoded:
            raise ConfigError(f"pre_encoded = {options.pre_encoded}: {camera.source} is live; it needs a recording")
        source = open_live(camera.source, options.buffer)
        fps = camera.fps or source.rate_fps
        return None, LiveFeed(source, fps), fps
    recording: Recording
    if options.scene_seconds is None:
        recording = open_recording(camera.source)
    else:
        recording = open_drawn_scene(camera.source, options.scene_seconds)
    if options.pre_encoded:
        recording = InMemory(recording, options.pre_encoded)
    fps = camera.fps or recording.rate_fps or PICTURE_RATE_FPS
    return recording, RecordedFeed(recording, fps), fps


async def _keep_writing(records: Records) -> None:
    while True:
        await asyncio.sleep(WRITE_EVERY_S)
        records.write()


async def _warm(client: AsyncClient, feed: Feed, encoder: FrameEncoder) -> None:
    """Do everything once that the first frame would otherwise wait for."""
    picture = await feed.prepare()
    client.choose()
    if picture is not None:
        for variant, entry in enumerate(client.zoo.variants):
            await encoder.encode(picture, entry.input_size, variant, DEFAULT_QUALITY)
    gc.collect()
    gc.freeze()


async def _encode_beforehand(client: AsyncClient, recording: Recording, encoder: FrameEncoder) -> None:
    """Every frame at every input size, at full quality; other qualities are encoded once when they are asked for."""
    for index in range(recording.length or 0):
        picture = Picture(index, recording.read(index))
        for variant, entry in enumerate(client.zoo.variants):
            await encoder.encode(picture, entry.input_size, variant, DEFAULT_QUALITY)


def final_line(statistics: Statistics) -> str:
    """A run in one line."""
    p99 = "-" if statistics.latency_p99_ms is None else f"{statistics.latency_p99_ms:.0f} ms"
    misses = ", ".join(
        f"{count} {outcome.value.lower()}"
        for outcome, count in statistics.outcomes.items()
        if outcome.is_miss and count
    )
    return (
        f"{statistics.on_time} of {statistics.captured} frames on time, {100 * statistics.miss_rate:.2f} % missed"
        f"{f' ({misses})' if misses else ''}, p99 {p99}"
    )
