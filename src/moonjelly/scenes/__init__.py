"""Seeded traffic scenes with exact boxes: a video source, a training set and a drift generator in one.

A scene is a pure function of a seed, its options and a frame index: frames may be asked for in any order and in any
process and are the same to the byte. How they are made is in ``docs/scenes.md``.
"""

from moonjelly.scenes.conditions import CLASSES, Conditions, Drift, Keyframe
from moonjelly.scenes.labels import FrameLabels
from moonjelly.scenes.options import LAYOUTS, SceneOptions
from moonjelly.scenes.scene import Scene

__all__ = ["CLASSES", "LAYOUTS", "Conditions", "Drift", "FrameLabels", "Keyframe", "Scene", "SceneOptions"]
