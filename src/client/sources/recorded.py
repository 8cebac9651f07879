"""Recordings: sources whose frames can be read again by index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from moonjelly.errors import ConfigError, SourceError, cause
from moonjelly.scenes import Scene, SceneOptions

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
SCENE_RATE_FPS = 30.0
"""Of the synthetic scene's time, whatever the client's rate: frame ``i`` shows the scene at ``i / 30`` s."""
_KEPT_QUALITY = 95
"""Of a JPEG that will be decoded, made smaller and encoded again."""


class Recording(Protocol):
    """Frames by index. Reading forward is cheap, going back may not be. Used by one thread at a time."""

    @property
    def name(self) -> str:
        """As the user gave it."""
        ...

    @property
    def rate_fps(self) -> float | None:
        """Own frame rate; ``None`` for pictures without time."""
        ...

    @property
    def length(self) -> int | None:
        """Number of frames; ``None`` for ever."""
        ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index``, ``(height, width, 3)`` uint8 RGB.

        Raises:
            SourceError: it cannot be read; names the source, the frame and the reason.
        """
        ...

    def close(self) -> None:
        """Free what is open. Idempotent."""
        ...


class Pictures:
    """A list of image files.

    Raises:
        SourceError: the list is empty.
    """

    rate_fps: float | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        if not paths:
            raise SourceError(f"source {name} has no pictures ({', '.join(PICTURE_SUFFIXES)})")
        self.name = name
        self.paths = tuple(paths)

    @property
    def length(self) -> int:
        """Number of files."""
        return len(self.paths)

    def read(self, index: int) -> NDArray[np.uint8]:
        """See :meth:`Recording.read`."""
        if not 0 <= index < self.length:
            raise SourceError(f"source {self.name} has {self.length} pictures; there is no number {index}")
        path = self.paths[index]
        try:
            data = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as fault:
            raise SourceError(f"picture {path} of source {self.name} cannot be read: {fault.strerror}") from None
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if picture is None:
            raise SourceError(f"picture {path} of source {self.name} cannot be decoded")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Nothing is open."""


class SyntheticScene:
    """The seeded traffic scene as a source without end, drawn as it is read."""

    rate_fps: float | None = SCENE_RATE_FPS
    length: int | None = None

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.scene = Scene(seed, SceneOptions(fps=SCENE_RATE_FPS))

    def read(self, index: int) -> NDArray[np.uint8]:
        """See :meth:`Recording.read`."""
        return self.scene.picture(index)

    def close(self) -> None:
        """Nothing is open."""


class DrawnScene:
    """The beginning of a synthetic scene as a recording: each picture is drawn once and kept as JPEG.

    Drawing takes several times what a client spends on a camera's frame. Where clients and server share the processors
    of one machine, it would be taken from the models.

    Args:
        scene: draws the pictures.
        seconds: how long the recording is.
    """

    rate_fps: float | None = SCENE_RATE_FPS

    def __init__(self, scene: SyntheticScene, seconds: float) -> None:
        self._scene = scene
        self._kept: dict[int, bytes] = {}
        self.name = scene.name
        self.length: int | None = max(1, round(seconds * SCENE_RATE_FPS))

    def draw(self, index: int) -> None:
        """Have frame ``index`` ready."""
        if index not in self._kept:
            self._kept[index] = simplejpeg.encode_jpeg(self._scene.read(index), _KEPT_QUALITY, "RGB", "420")

    def read(self, index: int) -> NDArray[np.uint8]:
        """See :meth:`Recording.read`."""
        self.draw(index)
        return np.asarray(simplejpeg.decode_jpeg(self._kept[index], "RGB", fastdct=True, fastupsample=True), np.uint8)

    def close(self) -> None:
        """See :meth:`Recording.close`."""
        self._scene.close()


class InMemory:
    """The first frames of a recording, decoded beforehand, for measurements that shall not time the decoder.

    Args:
        recording: read and left open.
        frames: how many; fewer when it is shorter.
    """

    def __init__(self, recording: Recording, frames: int) -> None:
        self._recording = recording
        self.name = recording.name
        self.rate_fps = recording.rate_fps
        self.length: int | None = frames if recording.length is None else min(frames, recording.length)
        self._frames = [recording.read(index) for index in range(self.length)]

    def read(self, index: int) -> NDArray[np.uint8]:
        """See :meth:`Recording.read`."""
        return self._frames[index]

    def close(self) -> None:
        """See :meth:`Recording.close`."""
        self._recording.close()


def pictures_of(name: str, path: Path) -> Pictures:
    """Pictures of a folder in order of their names, or of a text file with one path per line (relative to it).

    Raises:
        SourceError: unreadable, or no picture in it.
    """
    try:
        if path.is_dir():
            paths = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            paths = [path.parent / line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as fault:
        raise SourceError(f"source {name} cannot be read: {cause(fault)}") from None
    return Pictures(name, paths)


def scene_of(name: str) -> SyntheticScene:
    """``synthetic`` or ``synthetic:SEED``.

    Raises:
        ConfigError: the seed is no whole number from 0.
    """
    _, _, seed = name.partition(":")
    if seed and not seed.isdecimal():
        raise ConfigError(f"source {name}: '{seed}' is no seed; write synthetic:NUMBER with a whole number from 0")
    return SyntheticScene(name, int(seed or 0))
