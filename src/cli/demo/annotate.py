"""A few answered frames with their boxes drawn, for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cli.demo.settings import DemoSettings, host_directory, source_of
from client import sources
from moonjelly.telemetry import FrameRow, read_rows
from moonjelly.types import Outcome

PICTURES = 4
_COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))


@dataclass(frozen=True)
class Picture:
    """One annotated frame as PNG."""

    caption: str
    png: bytes


def annotate(settings: DemoSettings, classes: Sequence[str]) -> tuple[Picture, ...]:
    """Frames from the middle of the run, from as many clients as there are pictures."""
    clients = settings.client_settings()
    pictures = []
    for number in range(min(PICTURES, max(len(clients), 1))):
        one = clients[number % len(clients)]
        directory = host_directory(settings.out, one.index)
        log = directory / "frame_stats.csv"
        rows = list(read_rows(log, FrameRow)) if log.exists() else []
        answered = [row for row in rows if row.outcome is Outcome.ON_TIME and row.source_frame is not None]
        if not answered:
            continue
        boxes: list[dict[str, Any]] = json.loads((directory / "detections.json").read_text(encoding="utf-8"))
        frames_with_boxes = {box["frame_id"] for box in boxes}
        wanted = [row for row in answered if row.frame_id in frames_with_boxes] or answered
        row = wanted[len(wanted) // 2]
        assert row.source_frame is not None
        image = sources.read_frame(source_of(settings, one), row.source_frame)
        drawn = draw(image, [box for box in boxes if box["frame_id"] == row.frame_id], classes)
        caption = f"{one.name}, frame {row.frame_id}: {row.used_model} in {row.e2e_latency:.0f} of {row.slo_ms:g} ms"
        pictures.append(Picture(caption, _png(drawn)))
    return tuple(pictures)


def draw(image: NDArray[np.uint8], boxes: Sequence[dict[str, Any]], classes: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of an RGB image with COCO results (``bbox`` is x, y, w, h in pixels) drawn on it."""
    canvas = image.copy()
    for box in boxes:
        x, y, width, height = (round(value) for value in box["bbox"])
        colour = _COLOURS[int(box["category_id"]) % len(_COLOURS)]
        cv2.rectangle(canvas, (x, y), (x + width, y + height), colour, 2)
        label = f"{classes[int(box['category_id'])]} {box['score']:.2f}"
        cv2.putText(canvas, label, (x, max(10, y - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return canvas


def _png(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError("PNG encoding failed")
    return bytes(data)
