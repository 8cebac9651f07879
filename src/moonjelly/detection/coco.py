"""Detections, or annotated truth, as one COCO JSON file.

The file is a COCO *dataset* (``images``, ``categories``, ``annotations``), which pycocotools reads as it stands; its
``annotations`` alone are a COCO *results* list. A frame that was answered without boxes is an image without
annotations, and a frame that was never answered is no image: a plain results list cannot tell the two apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import CocoError, cause
from moonjelly.types import Detections


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One picture or frame; sides in pixels."""

    image_id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Boxes of several pictures.

    Attributes:
        classes: names; :attr:`Detections.classes` indexes them.
        category_ids: COCO's id of each class.
        images: the pictures.
        detections: by image id; a missing id has no boxes.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[CocoImage, ...]
    detections: Mapping[int, Detections]

    @staticmethod
    def of(classes: Sequence[str], images: Sequence[CocoImage], detections: Mapping[int, Detections]) -> CocoSet:
        """A set whose category ids count from 1."""
        return CocoSet(tuple(classes), tuple(range(1, len(classes) + 1)), tuple(images), dict(detections))


def to_results(image: CocoImage, found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """One picture's part of a COCO results list: boxes in pixels, ``x y width height``.

    Args:
        image: the picture.
        found: its boxes, as fractions.
        category_ids: COCO's id of each class.
    """
    pixels = found.boxes.astype(np.float64) * _scale(image)
    pixels[:, 2:] -= pixels[:, :2]
    # A ten-thousandth of a pixel is enough for every use and halves the file.
    return [
        {
            "image_id": image.image_id,
            "category_id": category_ids[int(found.classes[index])],
            "bbox": [round(value, 4) for value in box],
            "score": round(float(found.scores[index]), 6),
        }
        for index, box in enumerate(pixels.tolist())
    ]


def from_results(
    results: Iterable[Mapping[str, Any]], images: Iterable[CocoImage], category_ids: Sequence[int]
) -> dict[int, Detections]:
    """Inverse of :func:`to_results` over several pictures; a picture without results has no boxes.

    Args:
        results: of the pictures, in any order; one without a score is certain, as truth is.
        images: the pictures.
        category_ids: COCO's id of each class.

    Raises:
        CocoError: a result lacks a part, or names an unknown picture or category.
    """
    by_id = {image.image_id: image for image in images}
    index_of = {number: index for index, number in enumerate(category_ids)}
    grouped: dict[int, list[Mapping[str, Any]]] = {number: [] for number in by_id}
    try:
        for result in results:
            grouped[int(result["image_id"])].append(result)
        return {number: _detections(rows, by_id[number], index_of) for number, rows in grouped.items()}
    except (KeyError, TypeError, ValueError) as fault:
        raise CocoError(f"a COCO result has a part that is missing, malformed or unknown: {fault!r}") from fault


def _detections(rows: list[Mapping[str, Any]], image: CocoImage, index_of: Mapping[int, int]) -> Detections:
    if not rows:
        return Detections.empty()
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes /= _scale(image)
    scores = np.array([row.get("score", 1.0) for row in rows], np.float32)
    classes = np.array([index_of[int(row["category_id"])] for row in rows], np.int32)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order].astype(np.float32), scores[order], classes[order])


def _scale(image: CocoImage) -> NDArray[np.float64]:
    return np.array([image.width, image.height, image.width, image.height], np.float64)


def to_dataset(content: CocoSet) -> dict[str, Any]:
    """As a COCO dataset."""
    results = [
        result
        for image in content.images
        for result in to_results(
            image, content.detections.get(image.image_id, Detections.empty()), content.category_ids
        )
    ]
    return {
        "info": {"description": "detections by moonjelly"},
        "images": [
            {"id": image.image_id, "file_name": image.file_name, "width": image.width, "height": image.height}
            for image in content.images
        ],
        "categories": [
            {"id": number, "name": name} for number, name in zip(content.category_ids, content.classes, strict=True)
        ],
        "annotations": [
            {"id": number, **result, "area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0}
            for number, result in enumerate(results, start=1)
        ],
    }


def from_dataset(dataset: Mapping[str, Any]) -> CocoSet:
    """Inverse of :func:`to_dataset`; truth without scores has score 1, and crowds are left out.

    Raises:
        CocoError: a part is missing, or names an unknown image or category.
    """
    try:
        categories = sorted(dataset["categories"], key=lambda category: int(category["id"]))
        names = tuple(str(category["name"]) for category in categories)
        ids = tuple(int(category["id"]) for category in categories)
        images = tuple(
            CocoImage(int(image["id"]), str(image["file_name"]), int(image["width"]), int(image["height"]))
            for image in dataset["images"]
        )
        objects = [annotation for annotation in dataset["annotations"] if not annotation.get("iscrowd", 0)]
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise CocoError(f"not a COCO dataset with images, categories and annotations: {fault!r}") from fault
    return CocoSet(names, ids, images, from_results(objects, images, ids))


def write_coco(path: Path, content: CocoSet) -> None:
    """Write a dataset file; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(to_dataset(content)), encoding="utf-8")
    os.replace(beside, path)


def read_coco(path: Path) -> CocoSet:
    """Read a dataset file, ours or COCO's own.

    Raises:
        CocoError: the file is missing, not JSON or not a COCO dataset.
    """
    return from_dataset(read_dataset(path))


def read_dataset(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        CocoError: the file is missing, or not a JSON object.
    """
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise CocoError(f"{path} cannot be read as COCO JSON: {cause(fault)}") from fault
    if not isinstance(dataset, dict):
        raise CocoError(f"{path} holds a list, not a COCO dataset; a results list lacks the pictures' sizes")
    return dataset
