"""Records what every variant of a zoo sees in a source, for simulated devices to answer with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.pacing import source_index
from client.sources import open_recording
from moonjelly.detection.coco import write_coco
from moonjelly.errors import ConfigError
from moonjelly.inference import make_executor
from moonjelly.inference.recorded import record
from moonjelly.repository import FileCache, load_zoo

Report = Callable[[str, int], None]
"""Called with the variant that is running and its frames so far."""


def record_zoo(zoo: str, source: str, fps: float | None, frames: int, out: Path, report: Report) -> int:
    """Write ``<variant>.json`` for every variant; the number of frames in each.

    Args:
        zoo: name or directory.
        source: recording, as clients are given it.
        fps: rate at which clients will show it; ``None``: its own.
        frames: at most so many.
        out: directory.
        report: progress.

    Raises:
        ConfigError: one of the files is there already.
        SourceError: the source is live or cannot be read.
        ZooError, ModelError, ExecutorError: a variant cannot be run here.
    """
    models = load_zoo(zoo)
    places = {variant.name: out / f"{variant.name}.json" for variant in models.variants}
    if there := [place for place in places.values() if place.exists()]:
        raise ConfigError(f"{there[0]} is there already; remove it, or name another --out")
    executor = make_executor(cache=FileCache())
    count = 0
    try:
        for variant in models.variants:
            pictures = itertools.islice(_shown(source, fps), frames)
            told = _told(pictures, partial(report, variant.name))
            content = record(executor, variant, models.source(variant.model), models.classes, told)
            write_coco(places[variant.name], content)
            count = len(content.images)
    finally:
        executor.close()
    return count


def _shown(source: str, fps: float | None) -> Iterator[NDArray[np.uint8]]:
    """The pictures that a client of this rate shows, until the recording ends."""
    recording = open_recording(source)
    try:
        rate = recording.rate_fps
        for tick in itertools.count():
            index = tick if fps is None else source_index(tick, fps, rate)
            if recording.length is not None and index >= recording.length:
                return
            yield recording.read(index)
    finally:
        recording.close()


def _told(pictures: Iterator[NDArray[np.uint8]], report: Callable[[int], None]) -> Iterator[NDArray[np.uint8]]:
    for number, picture in enumerate(pictures, start=1):
        yield picture
        report(number)
