"""What real models once saw in a recording: written as COCO datasets, read back for simulated executors.

A folder holds ``<variant>.json`` for every variant of a zoo; one file alone stands for all variants. The images of a
dataset, in the order of their ids, are the frames of a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moonjelly.detection.coco import CocoImage, CocoSet, read_coco
from moonjelly.errors import CocoError, ExecutorError
from moonjelly.inference.preprocess import resize
from moonjelly.inference.protocol import Executor, FrameInput, ModelSource
from moonjelly.types import Detections, Variant


@dataclass(frozen=True, eq=False, slots=True)
class RecordedAnswers:
    """What was once seen in the frames of one recording; a stream that goes on past its end sees it again.

    Attributes:
        by_variant: variant name to detections by frame; every variant has the same, positive number of frames.
    """

    by_variant: Mapping[str, Sequence[Detections]]

    def __post_init__(self) -> None:
        lengths = {name: len(frames) for name, frames in self.by_variant.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ExecutorError(f"recorded detections need the same frames for every variant, at least one: {lengths}")

    def detections(self, variant: str, stream: str, frame_id: int) -> Detections:
        """What ``variant`` saw in the frame; clients number theirs from 1.

        Raises:
            ExecutorError: nothing was recorded of ``variant``.
        """
        frames = self.by_variant.get(variant)
        if frames is None:
            raise ExecutorError(f"nothing was recorded of variant '{variant}'; there are {', '.join(self.by_variant)}")
        return frames[(frame_id - 1) % len(frames)]


def record(
    executor: Executor,
    variant: Variant,
    source: ModelSource,
    classes: Sequence[str],
    pictures: Iterable[NDArray[np.uint8]],
) -> CocoSet:
    """Show one variant every picture.

    Args:
        executor: with the thresholds of serving; the variant does not stay loaded.
        variant: to run.
        source: of its model.
        classes: names that its detections index.
        pictures: frames in order, ``(height, width, 3)`` uint8 RGB.

    Raises:
        ModelError, ExecutorError: the variant cannot be run here.
    """
    executor.load(variant, source, 1)
    images, found = [], {}
    for number, picture in enumerate(pictures, start=1):
        frame = FrameInput("recording", number, resize(picture, variant.input_size))
        found[number] = executor.infer(variant.name, [frame])[0]
        images.append(CocoImage(number, f"frame-{number}", width=picture.shape[1], height=picture.shape[0]))
    executor.unload(variant.name)
    return CocoSet.of(classes, images, found)


def read_answers(place: Path, variants: Sequence[Variant], classes: Sequence[str]) -> RecordedAnswers:
    """Answers for a zoo.

    Args:
        place: a folder or a file, see the module.
        variants: of the zoo.
        classes: of the zoo; the file's are found among them by name.

    Raises:
        CocoError: a file is missing, is no COCO dataset, has no images, has boxes of a class that the zoo does not
            know, or another number of images than its neighbours.
    """
    if place.is_dir():
        by_variant = {variant.name: _frames(place / f"{variant.name}.json", classes) for variant in variants}
    else:
        by_variant = dict.fromkeys((variant.name for variant in variants), _frames(place, classes))
    try:
        return RecordedAnswers(by_variant)
    except ExecutorError as fault:
        raise CocoError(f"{place}: {fault}") from None


def _frames(path: Path, classes: Sequence[str]) -> tuple[Detections, ...]:
    content = read_coco(path)
    used = np.unique([number for found in content.detections.values() for number in found.classes]).astype(np.int32)
    if unknown := [content.classes[number] for number in used if content.classes[number] not in classes]:
        raise CocoError(f"{path} has boxes of class '{unknown[0]}', which the zoo lacks; it has {', '.join(classes)}")
    index_of = np.zeros(len(content.classes), np.int32)
    index_of[used] = [classes.index(content.classes[number]) for number in used]
    numbers = sorted(image.image_id for image in content.images)
    seen = [content.detections.get(number, Detections.empty()) for number in numbers]
    return tuple(Detections(found.boxes, found.scores, index_of[found.classes]) for found in seen)
