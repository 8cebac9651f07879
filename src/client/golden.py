"""Detections that count as true for a source's frames, and F1 against them.

For a recording they are those of the zoo's most accurate variant on the undistorted frame (Jellyfish's golden model);
for the synthetic scene served by a zoo of its classes they are the scene's own boxes. A frame that was late, dropped
or never sent has no detections: that is what makes F1 *effective*.

Needs torch or onnxruntime, which a client host need not have: import this module where accuracy is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from client.sources import Pictures, Recording, SyntheticScene, open_recording
from moonjelly import scenes
from moonjelly.detection import MatchCounts, match_frames, without_ignored
from moonjelly.detection.coco import CocoImage, from_results
from moonjelly.errors import SourceError
from moonjelly.inference import Executor, FrameInput, make_executor
from moonjelly.inference.preprocess import resize
from moonjelly.repository import FileCache, Zoo, load_zoo
from moonjelly.summary import after_warmup
from moonjelly.telemetry import FrameRow, read_rows
from moonjelly.types import Detections, Outcome

Report = Callable[[int, int], None]
"""Called with frames done and frames in all."""


@dataclass(frozen=True, slots=True)
class Score:
    """Boxes found, invented and overlooked by one client.

    Attributes:
        answered: over the frames answered on time.
        every: over every captured frame; a missed one has no detections.
    """

    answered: MatchCounts
    every: MatchCounts


@dataclass(frozen=True, eq=False, slots=True)
class Golden:
    """What a frame should have been answered with.

    Attributes:
        asked: boxes that count.
        ignored: ``(n, 4)`` boxes of objects that nobody is asked to see; a detection of one is no fault.
    """

    asked: Detections
    ignored: NDArray[np.float32]


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    boxes: bytes
    scores: bytes
    classes: bytes


def detections(
    source: str,
    zoo: str | Path,
    frames: Iterable[int],
    *,
    report: Report = lambda done, total: None,
    cache: FileCache | None = None,
) -> dict[int, Golden]:
    """Golden detections of a recording's frames; each is computed once per machine and kept on disk.

    Args:
        source: as the client was given it.
        zoo: name or folder.
        frames: their numbers in the source.
        report: progress.
        cache: where they are kept; the user's, unless given.

    Raises:
        SourceError: the source is live or cannot be read.
        ZooError: the zoo cannot be used, for example because its weights are absent.
        ModelError, ExecutorError: its model cannot be run here.
    """
    wanted = sorted(set(frames))
    models = load_zoo(zoo)
    recording = open_recording(source)
    try:
        if isinstance(recording, SyntheticScene) and tuple(models.classes) == scenes.CLASSES:
            return {index: _truth(recording, index) for index in wanted}
        golden = _GoldenModel(models, cache or FileCache(), _digest(recording, source))
        try:
            found = {}
            for done, index in enumerate(wanted, start=1):
                found[index] = Golden(golden.detections(recording, index), np.zeros((0, 4), np.float32))
                report(done, len(wanted))
            return found
        finally:
            golden.close()
    finally:
        recording.close()


def score(
    directory: Path,
    source: str,
    zoo: str | Path,
    *,
    warmup_s: float = 0.0,
    report: Report = lambda done, total: None,
    cache: FileCache | None = None,
) -> Score:
    """Score one client's run from its ``frame_stats.csv`` and ``detections.json``.

    Args:
        directory: holds them.
        source: what it streamed.
        zoo: that it was served from.
        warmup_s: frames captured less than that after the first one do not count.
        report: progress of the golden model.
        cache: see :func:`detections`.

    Raises:
        SourceError: as for :func:`detections`, or the logs do not say which frames were captured.
    """
    rows = after_warmup(list(read_rows(directory / "frame_stats.csv", FrameRow)), warmup_s)
    unknown = sum(row.source_frame is None for row in rows)
    if unknown:
        raise SourceError(f"{directory}: {unknown} of {len(rows)} frames have no number in their source; it was live")
    golden = detections(source, zoo, (_number(row) for row in rows), report=report, cache=cache)
    detected = _detected(directory / "detections.json", rows, source, len(load_zoo(zoo).classes))
    answered = [row for row in rows if row.outcome is Outcome.ON_TIME]
    missed = [row for row in rows if row.outcome is not Outcome.ON_TIME]
    on_time = match_frames(_judged(detected[row.frame_id], golden[_number(row)]) for row in answered)
    nothing = match_frames((Detections.empty(), golden[_number(row)].asked) for row in missed)
    return Score(on_time, on_time + nothing)


class _GoldenModel:
    """The zoo's most accurate variant; loaded when the first frame is not in the cache."""

    def __init__(self, zoo: Zoo, cache: FileCache, source_digest: str) -> None:
        self._variant = zoo.variants[-1]
        self._model = zoo.source(self._variant.model)
        self._cache = cache
        self._executor: Executor | None = None
        variant = self._variant
        self._key = f"golden 1 {source_digest} {self._model.digest} {variant.input_size} {variant.precision}"

    def detections(self, recording: Recording, index: int) -> Detections:
        data = self._cache.get(f"{self._key} {index}", lambda: self._infer(recording, index))
        stored = msgspec.msgpack.decode(data, type=_Stored)
        boxes = np.frombuffer(stored.boxes, np.float32).reshape(-1, 4)
        return Detections(boxes, np.frombuffer(stored.scores, np.float32), np.frombuffer(stored.classes, np.int32))

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()

    def _infer(self, recording: Recording, index: int) -> bytes:
        if self._executor is None:
            self._executor = make_executor(cache=self._cache)
            self._executor.load(self._variant, self._model, 1)
        image = resize(recording.read(index), self._variant.input_size)
        found = self._executor.infer(self._variant.name, [FrameInput("golden", index, image)])[0]
        return msgspec.msgpack.encode(_Stored(found.boxes.tobytes(), found.scores.tobytes(), found.classes.tobytes()))


def _truth(recording: SyntheticScene, index: int) -> Golden:
    picture, labels = recording.scene.frame(index)
    asked = labels.asked(picture.shape[1], picture.shape[0])
    return Golden(labels.where(asked).as_detections(), labels.boxes[~asked])


def _judged(detected: Detections, golden: Golden) -> tuple[Detections, Detections]:
    return without_ignored(detected, golden.asked.boxes, golden.ignored), golden.asked


def _digest(recording: Recording, source: str) -> str:
    """Names the content of a source, so that a changed file is computed anew."""
    digest = hashlib.sha256()
    if isinstance(recording, SyntheticScene):
        digest.update(f"{source} {recording.scene.seed}".encode())
    else:
        paths = recording.paths if isinstance(recording, Pictures) else (Path(source).expanduser(),)
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _number(row: FrameRow) -> int:
    assert row.source_frame is not None  # score() has refused rows without
    return row.source_frame


def _detected(path: Path, rows: list[FrameRow], source: str, classes: int) -> dict[int, Detections]:
    """By frame id; a frame without boxes has none."""
    sizes = _sizes(source, {_number(row) for row in rows})
    asked = {row.frame_id for row in rows}
    told = json.loads(path.read_text(encoding="utf-8"))
    results = [{**one, "image_id": one["frame_id"]} for one in told if one["frame_id"] in asked]
    images = [CocoImage(row.frame_id, "", *sizes[_number(row)]) for row in rows]
    return from_results(results, images, range(classes))


def _sizes(source: str, numbers: set[int]) -> dict[int, tuple[int, int]]:
    """Width and height by frame number: pictures may differ, the frames of a video do not."""
    recording = open_recording(source)
    try:
        alike = not isinstance(recording, Pictures)
        shapes = {index: recording.read(index).shape for index in (sorted(numbers)[:1] if alike else sorted(numbers))}
        common = next(iter(shapes.values()), (1, 1, 3))
        return {index: (shapes.get(index, common)[1], shapes.get(index, common)[0]) for index in numbers}
    finally:
        recording.close()
