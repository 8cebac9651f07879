"""Average precision by pycocotools, COCO's own evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    dataset = to_dataset(truth) if isinstance(truth, CocoSet) else dict(truth)
    known = from_dataset(dataset)
    found = to_dataset(CocoSet(tuple(classes), _category_ids(known, classes), known.images, detections))["annotations"]
    if not dataset["annotations"]:
        raise CocoError("the truth has no boxes, so that there is no average precision")
    if not found:
        return AveragePrecision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {"info": {}, **dataset}
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return AveragePrecision(ap50=float(evaluation.stats[1]), ap=float(evaluation.stats[0]))


def _category_ids(truth: CocoSet, classes: Sequence[str]) -> tuple[int, ...]:
    id_of = dict(zip(truth.classes, truth.category_ids, strict=True))
    ids = tuple(id_of.get(name, id_of.get(_SYNONYMS.get(name, name))) for name in classes)
    unknown = [name for name, number in zip(classes, ids, strict=True) if number is None]
    if unknown:
        raise CocoError(f"class '{unknown[0]}' is none of the truth's: {', '.join(truth.classes)}")
    return tuple(number for number in ids if number is not None)
