"""Frame sources by name. FFmpeg is imported with the first video or camera: other clients start without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.sources.buffer import BufferStrategy, Picture
from client.sources.recorded import (
    PICTURE_SUFFIXES,
    DrawnScene,
    InMemory,
    Pictures,
    Recording,
    SyntheticScene,
    pictures_of,
    scene_of,
)
from moonjelly.errors import SourceError

if TYPE_CHECKING:
    from client.sources.live import LiveSource


def is_live(name: str) -> bool:
    """Whether ``name`` is a camera: a URL or a video device."""
    return "://" in name or name.startswith("/dev/video")


def is_scene(name: str) -> bool:
    """Whether ``name`` is a synthetic scene: ``synthetic[:SEED]``."""
    return name == "synthetic" or name.startswith("synthetic:")


def open_recording(name: str) -> Recording:
    """Open a video file, a folder or list (``.txt``) of pictures, or ``synthetic[:SEED]``.

    Raises:
        SourceError: it cannot be read, or is a camera; names it and the reason.
        ConfigError: ``synthetic:`` with something that is no seed.
    """
    if is_live(name):
        raise SourceError(f"source {name} is live: its frames cannot be read again")
    if is_scene(name):
        return scene_of(name)
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix.lower() == ".txt":
        return pictures_of(name, path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return Pictures(name, [path])
    from client.sources.video import VideoFile

    return VideoFile(name, path)


def open_drawn_scene(name: str, seconds: float) -> DrawnScene:
    """Open the first ``seconds`` of a synthetic scene, to be drawn beforehand.

    Raises:
        SourceError: ``name`` is something else.
        ConfigError: its seed is none.
    """
    if not is_scene(name):
        raise SourceError(f"source {name} is no synthetic scene: there is nothing to draw beforehand")
    return DrawnScene(scene_of(name), seconds)


def open_live(name: str, strategy: BufferStrategy) -> LiveSource:
    """Open a camera.

    Raises:
        SourceError: it cannot be opened; names it and the reason.
    """
    from client.sources.live import LiveSource

    return LiveSource(name, strategy)


def read_frame(name: str, index: int) -> NDArray[np.uint8]:
    """Frame ``index`` of a recording, ``(height, width, 3)`` uint8 RGB. For many, open it once.

    Raises:
        SourceError: see :func:`open_recording` and :meth:`Recording.read`.
    """
    recording = open_recording(name)
    try:
        return recording.read(index)
    finally:
        recording.close()


__all__ = [
    "BufferStrategy",
    "DrawnScene",
    "InMemory",
    "Picture",
    "Pictures",
    "Recording",
    "SyntheticScene",
    "is_live",
    "is_scene",
    "open_drawn_scene",
    "open_live",
    "open_recording",
    "read_frame",
]
