"""Accuracy of variants: average precision on a COCO set, or F1 against a golden model on a video."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.detection import match_frames
from moonjelly.detection.average_precision import AP_SCORE_THRESHOLD, average_precision
from moonjelly.errors import ConfigError, FrameError, SourceError, cause
from moonjelly.inference import Executor, FrameInput, PostOptions
from moonjelly.inference.preprocess import decode, resize
from moonjelly.repository import Zoo
from moonjelly.types import Detections, Variant
from server.profiler.options import Metric

EVALUATION = PostOptions(score_threshold=AP_SCORE_THRESHOLD, nms_iou=0.45, candidates=3000, multi_label=True)
"""Average precision is an area: it wants the weak detections that serving leaves out."""

Report = Callable[[str], None]
"""Told the name of the variant that is finished."""


def measure_ap(
    executor: Executor, zoo: Zoo, variants: Sequence[Variant], coco: Path, metric: Metric, report: Report
) -> dict[str, float]:
    """Average precision per variant name.

    Args:
        executor: made with :data:`EVALUATION`.
        zoo: of the variants.
        variants: to measure.
        coco: folder with ``instances.json`` and ``images/``.
        metric: which precision.
        report: called after each variant.

    Raises:
        ConfigError: the folder has no such files.
        FrameError: a picture cannot be decoded.
        MoonjellyError: the annotations are no COCO set, or do not know the zoo's classes.
    """
    truth = read_truth(coco)
    accuracies = {}
    for variant in variants:
        images = ((int(image["id"]), _picture(coco, image["file_name"], variant)) for image in truth["images"])
        detections = dict(_detect(executor, zoo, variant, images))
        precision = average_precision(truth, detections, zoo.classes)
        accuracies[variant.name] = precision.ap if metric == "ap" else precision.ap50
        report(variant.name)
    return accuracies


def measure_f1(
    executor: Executor, zoo: Zoo, variants: Sequence[Variant], golden: str, video: Path, frames: int, report: Report
) -> dict[str, float]:
    """F1 at IoU 0.5 per variant name against what ``golden`` sees in the same frames; its own is 1.

    Args:
        executor: with the thresholds of serving.
        zoo: of the variants.
        variants: to measure.
        golden: name of the variant that is taken for true.
        video: file.
        frames: evenly spread over it.
        report: called after each variant.

    Raises:
        SourceError: the video cannot be read.
        ZooError: there is no such golden variant.
    """
    pictures = read_video(video, frames)

    def seen(variant: Variant) -> list[Detections]:
        images = ((number, resize(picture, variant.input_size)) for number, picture in enumerate(pictures))
        return [found for _, found in _detect(executor, zoo, variant, images)]

    truth = seen(zoo.variant(golden))
    accuracies = {}
    for variant in variants:
        accuracies[variant.name] = match_frames(zip(seen(variant), truth, strict=True)).f1
        report(variant.name)
    return accuracies


def read_video(file: Path, count: int) -> list[NDArray[np.uint8]]:
    """``count`` frames as RGB, evenly spread over a video; all when it has fewer.

    Raises:
        SourceError: the file is missing or holds no readable video.
    """
    try:
        with av.open(str(file)) as container:
            total = sum(1 for _ in container.decode(video=0))
        wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
        with av.open(str(file)) as container:
            chosen = (frame for number, frame in enumerate(container.decode(video=0)) if number in wanted)
            pictures = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in chosen]
    except (av.error.FFmpegError, OSError, IndexError) as fault:
        raise SourceError(f"video {file} cannot be read: {cause(fault)}") from fault
    if not pictures:
        raise SourceError(f"video {file} has no frames")
    return pictures


def _detect(
    executor: Executor, zoo: Zoo, variant: Variant, images: Iterator[tuple[int, NDArray[np.uint8]]]
) -> Iterator[tuple[int, Detections]]:
    executor.load(variant, zoo.source(variant.model), 1)
    for number, image in images:
        yield number, executor.infer(variant.name, [FrameInput("accuracy", number, image)])[0]
    executor.unload(variant.name)


def read_truth(coco: Path) -> dict[str, Any]:
    """The annotations of a COCO folder.

    Raises:
        ConfigError: there is no ``instances.json``, or it is no COCO annotation file.
    """
    file = coco / "instances.json"
    try:
        truth = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ConfigError(
            f"{file} cannot be read: {cause(fault)}; --coco names a folder with instances.json and images/"
        ) from fault
    if not isinstance(truth, dict) or not isinstance(truth.get("images"), list) or "annotations" not in truth:
        raise ConfigError(f"{file} is no COCO annotation file: it needs images, annotations and categories")
    return truth


def _picture(coco: Path, name: str, variant: Variant) -> NDArray[np.uint8]:
    file = coco / "images" / name
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise ConfigError(f"picture {file} cannot be read: {cause(fault)}") from fault
    if file.suffix.lower() in (".jpg", ".jpeg"):
        return decode(data, variant.input_size)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise FrameError(f"picture {file} cannot be decoded")
    return resize(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8), variant.input_size)
