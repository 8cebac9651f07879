"""Average precision by pycocotools, COCO's own evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from moonjelly.detection.coco import CocoSet, from_dataset, to_dataset
from moonjelly.errors import CocoError
from moonjelly.types import Detections

AP_SCORE_THRESHOLD = 0.001
"""Score from which on detections should be given to :func:`average_precision`: precision is taken at every recall."""

_SYNONYMS = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""Names in Darknet's ``coco.names`` and in COCO's annotations."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """In [0, 1], mean over the classes that the truth has.

    Attributes:
        ap50: at IoU 0.5.
        ap: mean over IoU 0.50, 0.55, ... 0.95.
    """

    ap50: float
    ap: float


def average_precision(
    truth: CocoSet | Mapping[str, Any], detections: Mapping[int, Detections], classes: Sequence[str]
) -> AveragePrecision:
    """Evaluate detections on every picture of the truth.

    Args:
        truth: our set, or a COCO dataset as read (then its crowds and areas count as COCO means them).
        detections: by image id; a picture without an entry counts as one without boxes.
        classes: names that ``detections`` indexes; each must be one of the truth's, under COCO's or Darknet's name.

    Raises:
        CocoError: a class that the truth does not know, or a truth without boxes.
    """
    evaluation = _evaluate(truth, detections, classes)
    return AveragePrecision(0.0, 0.0) if evaluation is None else _accumulated(evaluation)


def resampled_precision(
    truth: CocoSet | Mapping[str, Any],
    detections: Mapping[int, Detections],
    classes: Sequence[str],
    draws: Iterable[Sequence[int]],
) -> list[AveragePrecision]:
    """:func:`average_precision` of other choices of as many pictures: what it could as well have been (bootstrap).

    Pictures are matched once. Choose alike for two sets of detections, and the differences are paired.

    Args:
        truth: as for :func:`average_precision`.
        detections: likewise.
        classes: likewise.
        draws: each as many indices into the truth's pictures by increasing id as there are pictures; any may come
            several times or not at all.

    Raises:
        CocoError: as :func:`average_precision`.
    """
    evaluation = _evaluate(truth, detections, classes)
    if evaluation is None:
        return [AveragePrecision(0.0, 0.0) for _ in draws]
    matched = np.empty(len(evaluation.evalImgs), object)
    matched[:] = evaluation.evalImgs
    by_picture = matched.reshape(-1, len(evaluation.params.imgIds))
    found = []
    for draw in draws:
        evaluation.evalImgs = by_picture[:, np.asarray(draw)].ravel().tolist()
        found.append(_accumulated(evaluation))
    return found


def _accumulated(evaluation: COCOeval) -> AveragePrecision:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return AveragePrecision(ap50=_mean_precision(precision[0]), ap=_mean_precision(precision))


def _mean_precision(precision: NDArray[np.float64]) -> float:
    """Over recalls and classes; -1 marks a class of which no object was drawn."""
    known = precision[precision > -1.0]
    return float(known.mean()) if known.size else 0.0


def _evaluate(
    truth: CocoSet | Mapping[str, Any], detections: Mapping[int, Detections], classes: Sequence[str]
) -> COCOeval | None:
    """Detections matched with the truth, picture by picture; ``None`` without detections.

    Objects of all sizes together, and one limit of detections: the overall figures need no other.
    """
    dataset = to_dataset(truth) if isinstance(truth, CocoSet) else dict(truth)
    known = from_dataset(dataset)
    found = to_dataset(CocoSet(tuple(classes), _category_ids(known, classes), known.images, detections))["annotations"]
    if not dataset["annotations"]:
        raise CocoError("the truth has no boxes, so that there is no average precision")
    if not found:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"info": {}, **dataset}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        settings = evaluation.params
        settings.maxDets = settings.maxDets[-1:]
        settings.areaRng, settings.areaRngLbl = settings.areaRng[:1], settings.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation


def _category_ids(truth: CocoSet, classes: Sequence[str]) -> tuple[int, ...]:
    id_of = dict(zip(truth.classes, truth.category_ids, strict=True))
    ids = tuple(id_of.get(name, id_of.get(_SYNONYMS.get(name, name))) for name in classes)
    unknown = [name for name, number in zip(classes, ids, strict=True) if number is None]
    if unknown:
        raise CocoError(f"class '{unknown[0]}' is none of the truth's: {', '.join(truth.classes)}")
    return tuple(number for number in ids if number is not None)
