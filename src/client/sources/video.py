"""Video files through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import SourceError, cause


class VideoFile:
    """A video file, decoded forward; going back starts again from the first frame.

    Raises:
        SourceError: not a readable video; names the path and the reason.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        if not path.exists():
            raise SourceError(f"source {name}: the file {path} does not exist")
        self._container: Any = self._open()
        stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = self._container.decode(stream)
        self._next = 0
        self._latest: NDArray[np.uint8] | None = None
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            self.close()
            raise SourceError(f"source {name}: {path} does not say its frame rate; give pictures instead")
        self.rate_fps: float | None = float(rate)
        self.length: int | None = self._count()

    def read(self, index: int) -> NDArray[np.uint8]:
        """See :meth:`client.sources.recorded.Recording.read`."""
        if self.length is not None and not 0 <= index < self.length:
            raise SourceError(f"source {self.name} has {self.length} frames; there is no frame {index}")
        if self._latest is not None and index == self._next - 1:
            return self._latest  # a client faster than the video shows a frame more than once
        if index < self._next:
            self._restart()
        try:
            frame = next(frame for frame in self._frames if self._advance() == index)
            picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        except StopIteration:
            raise SourceError(f"source {self.name}: {self._path} ends before frame {index}; it is cut short") from None
        except (av.error.FFmpegError, ValueError) as fault:
            raise SourceError(f"source {self.name}: frame {index} of {self._path} cannot be decoded: {fault}") from None
        self._latest = picture
        return picture

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _advance(self) -> int:
        self._next += 1
        return self._next - 1

    def _open(self) -> Any:
        try:
            container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError, ValueError) as fault:
            raise SourceError(f"source {self.name} cannot be opened as a video: {cause(fault)}") from None
        if not container.streams.video:
            container.close()
            raise SourceError(f"source {self.name}: {self._path} has no video stream")
        # One thread: several clients share a host, and a decoder's own threads would fight over its cores.
        container.streams.video[0].codec_context.thread_count = 1
        return container

    def _restart(self) -> None:
        self.close()
        self._container = self._open()
        self._frames = self._container.decode(video=0)
        self._next = 0
        self._latest = None

    def _count(self) -> int:
        """Frames, counted in the file's packets: headers are often wrong or silent about it."""
        try:
            with av.open(str(self._path)) as container:
                count = sum(packet.size > 0 for packet in container.demux(video=0))
        except av.error.FFmpegError as fault:
            raise SourceError(f"source {self.name}: {self._path} cannot be read to its end: {cause(fault)}") from None
        if count == 0:
            raise SourceError(f"source {self.name}: {self._path} has no frames")
        return count
