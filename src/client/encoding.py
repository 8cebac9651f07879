"""Encoding as the client does it: on the fly, or once per frame for measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from client.sources import Picture
from moonjelly.network import prior_bytes
from moonjelly.sdk import EncodedFrame
from moonjelly.sdk.encoding import Encoder


class FrameEncoder(Protocol):
    """Pictures in, encoded frames out; off the event loop."""

    async def encode(self, picture: Picture, size: int, variant: int, quality: int) -> EncodedFrame:
        """Squash to ``size`` x ``size`` and encode."""
        ...

    def close(self) -> None:
        """Free the threads."""
        ...


class LiveEncoder:
    """Encodes each frame when it is sent."""

    def __init__(self) -> None:
        self._encoder = Encoder()

    async def encode(self, picture: Picture, size: int, variant: int, quality: int) -> EncodedFrame:
        """See :meth:`FrameEncoder.encode`."""
        return await self._encoder.encode(picture.rgb, size, variant, quality)

    def close(self) -> None:
        """See :meth:`FrameEncoder.close`."""
        self._encoder.close()


class Padded:
    """Frames as large as Jellyfish's table expects: zeros behind the picture's end, which decoders ignore."""

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder

    async def encode(self, picture: Picture, size: int, variant: int, quality: int) -> EncodedFrame:
        """See :meth:`FrameEncoder.encode`; a frame that is larger already stays as it is."""
        encoded = await self._encoder.encode(picture, size, variant, quality)
        return replace(encoded, data=encoded.data.ljust(round(prior_bytes(size, quality)), b"\0"))

    def close(self) -> None:
        """See :meth:`FrameEncoder.close`."""
        self._encoder.close()


class EncodedOnce:
    """Keeps what it has encoded by frame, size and quality, so that a measurement does not time the encoder."""

    def __init__(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder
        self._kept: dict[tuple[int, int, int], EncodedFrame] = {}

    async def encode(self, picture: Picture, size: int, variant: int, quality: int) -> EncodedFrame:
        """See :meth:`FrameEncoder.encode`; the time given is 0 for a frame that was kept."""
        key = (picture.index, size, quality)
        kept = self._kept.get(key)
        if kept is None:
            kept = await self._encoder.encode(picture, size, variant, quality)
            self._kept[key] = kept
        return EncodedFrame(kept.data, kept.width, kept.height, variant, quality)

    def close(self) -> None:
        """See :meth:`FrameEncoder.close`."""
        self._encoder.close()
