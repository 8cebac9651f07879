"""What every executor is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moonjelly.detection.nms import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from moonjelly.errors import ConfigError

Runtime = Literal["auto", "torch", "onnx", "simulated"]
"""``auto``: torch on CUDA where there is a GPU, else onnx on the CPU."""

RUNTIMES: tuple[str, ...] = get_args(Runtime)


@dataclass(frozen=True, slots=True)
class PostOptions:
    """What becomes of a network's output.

    Attributes:
        score_threshold: boxes that score less are left out (Jellyfish: 0.20).
        nms_iou: a box that overlaps a better one of its class by more is left out (Jellyfish: 0.4).
        candidates: boxes of a frame that reach NMS at most, best first.
        max_detections: boxes of a frame at most.
        multi_label: a box may count for several classes, as COCO's evaluation expects; costs time, serving does
            without.
    """

    score_threshold: float = SCORE_THRESHOLD
    nms_iou: float = IOU_THRESHOLD
    candidates: int = 300
    max_detections: int = MAX_DETECTIONS
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.score_threshold <= 1.0 and 0.0 <= self.nms_iou <= 1.0):
            raise ConfigError(f"score_threshold {self.score_threshold} and nms_iou {self.nms_iou} must be in [0, 1]")
        if self.candidates < 1 or self.max_detections < 1:
            raise ConfigError(f"candidates {self.candidates} and max_detections {self.max_detections} must be positive")


DEFAULT_POST = PostOptions()
