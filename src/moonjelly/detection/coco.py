"""Detections, or annotated truth, as one COCO JSON file.

The file is a COCO *dataset* (``images``, ``categories``, ``annotations``), which pycocotools reads as it stands; its
``annotations`` alone are a COCO *results* list. A frame that was answered without boxes is an image without
annotations, and a frame that was never answered is no image: a plain results list cannot tell the two apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moonjelly.errors import CocoError
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
    def of(
        classes: Sequence[str], images: Sequence[CocoImage], detections: Mapping[int, Detections]
    ) -> CocoSet:  # fmt: skip
        """A set whose category ids count from 1."""
        return CocoSet(tuple(classes), tuple(range(1, len(classes) + 1)), tuple(images), dict(detections))


def to_dataset(content: CocoSet) -> dict[str, Any]:
    """As a COCO dataset; boxes in pixels, ``x y width height``."""
    annotations: list[dict[str, Any]] = []
    for image in content.images:
        annotations.extend(_annotations(content, image, len(annotations) + 1))
    return {
        "info": {"description": "detections by moonjelly"},
        "images": [
            {"id": image.image_id, "file_name": image.file_name, "width": image.width, "height": image.height}
            for image in content.images
        ],
        "categories": [
            {"id": number, "name": name} for number, name in zip(content.category_ids, content.classes, strict=True)
        ],
        "annotations": annotations,
    }


def _annotations(content: CocoSet, image: CocoImage, first_id: int) -> list[dict[str, Any]]:
    found = content.detections.get(image.image_id)
    if found is None:
        return []
    scale = np.array([image.width, image.height, image.width, image.height], np.float64)
    pixels = found.boxes.astype(np.float64) * scale
    pixels[:, 2:] -= pixels[:, :2]
    # A ten-thousandth of a pixel is enough for every use and halves the file.
    return [
        {
            "id": first_id + index,
            "image_id": image.image_id,
            "category_id": content.category_ids[int(found.classes[index])],
            "bbox": [round(value, 4) for value in box],
            "area": round(box[2] * box[3], 4),
            "iscrowd": 0,
            "score": round(float(found.scores[index]), 6),
        }
        for index, box in enumerate(pixels.tolist())
    ]


def from_dataset(dataset: Mapping[str, Any]) -> CocoSet:
    """Inverse of :func:`to_dataset`; truth without scores has score 1, and crowds are left out.

    Raises:
        CocoError: a part is missing or names an unknown image or category.
    """
    try:
        categories = sorted(dataset["categories"], key=lambda category: int(category["id"]))
        images = tuple(
            CocoImage(int(image["id"]), str(image["file_name"]), int(image["width"]), int(image["height"]))
            for image in dataset["images"]
        )
        grouped: dict[int, list[Mapping[str, Any]]] = {image.image_id: [] for image in images}
        for annotation in dataset["annotations"]:
            if not annotation.get("iscrowd", 0):
                grouped[int(annotation["image_id"])].append(annotation)
        ids = tuple(int(category["id"]) for category in categories)
        index_of = {number: index for index, number in enumerate(ids)}
        detections = {image.image_id: _detections(grouped[image.image_id], image, index_of) for image in images}
        return CocoSet(tuple(str(category["name"]) for category in categories), ids, images, detections)
    except (KeyError, TypeError, ValueError) as fault:
        raise CocoError(f"not a COCO dataset with images, categories and annotations: {fault!r}") from fault


def _detections(
    annotations: list[Mapping[str, Any]], image: CocoImage, index_of: Mapping[int, int]
) -> Detections:  # fmt: skip
    if not annotations:
        return Detections.empty()
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes /= np.array([image.width, image.height, image.width, image.height], np.float64)
    scores = np.array([annotation.get("score", 1.0) for annotation in annotations], np.float32)
    classes = np.array([index_of[int(annotation["category_id"])] for annotation in annotations], np.int32)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order].astype(np.float32), scores[order], classes[order])


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
        raise CocoError(f"{path} cannot be read as COCO JSON: {fault}") from fault
    if not isinstance(dataset, dict):
        raise CocoError(f"{path} holds a list, not a COCO dataset; a results list lacks the pictures' sizes")
    return dataset
