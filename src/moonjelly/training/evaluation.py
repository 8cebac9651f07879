"""Accuracy of a network on held-out scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from moonjelly.detection import match_frames, postprocess, without_ignored
from moonjelly.detection.average_precision import AP_SCORE_THRESHOLD, AveragePrecision, average_precision
from moonjelly.detection.coco import CocoImage, CocoSet
from moonjelly.inference.preprocess import decode, header
from moonjelly.models.darknet import DarknetNetwork, strongest
from moonjelly.scenes import CLASSES
from moonjelly.training.samples import Sample
from moonjelly.types import Detections

CANDIDATES = 1000
SERVED_SCORE = 0.3
"""Score from which a detection counts for F1."""
NMS_IOU = 0.45
SAME_IOU = 0.5
"""IoU from which a detection means a box."""


def evaluate(
    network: DarknetNetwork, samples: Sequence[Sample], input_size: int, progress: Callable[[int], None] | None = None
) -> tuple[AveragePrecision, float]:
    """Average precision and F1 (at IoU 0.5) against the exact truth.

    Objects that are not asked for (:meth:`moonjelly.scenes.FrameLabels.asked`) are no part of the truth, and
    detections that mean one of them and nothing else are neither right nor wrong, as with COCO's ignored regions.

    Args:
        network: in evaluation mode.
        samples: held-out pictures.
        input_size: side of the square that pictures are stretched to.
        progress: called with the number of pictures done.
    """
    truth: dict[int, Detections] = {}
    found: dict[int, Detections] = {}
    images = []
    for number, sample in enumerate(samples):
        width, height = header(sample.jpeg)
        images.append(CocoImage(number, f"{number}.jpg", width, height))
        asked = ~sample.ignored
        truth[number] = Detections(sample.boxes[asked], np.ones(asked.sum(), np.float32), sample.classes[asked])
        seen = _detect(network, sample, input_size)
        found[number] = without_ignored(seen, truth[number].boxes, sample.boxes[sample.ignored])
        if progress is not None:
            progress(number + 1)
    precision = average_precision(CocoSet.of(CLASSES, images, truth), found, CLASSES)
    served = ((_select(found[number], found[number].scores >= SERVED_SCORE), truth[number]) for number in truth)
    return precision, match_frames(served, SAME_IOU).f1


def _detect(network: DarknetNetwork, sample: Sample, input_size: int) -> Detections:
    picture = torch.from_numpy(decode(sample.jpeg, input_size)).permute(2, 0, 1)[None].float() / 255.0
    with torch.inference_mode():
        predictions = strongest(network(picture), CANDIDATES).numpy()
    return postprocess(predictions, AP_SCORE_THRESHOLD, NMS_IOU)[0]


def _select(detections: Detections, kept: NDArray[np.bool_]) -> Detections:
    return Detections(detections.boxes[kept], detections.scores[kept], detections.classes[kept])
