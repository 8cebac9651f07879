"""The one protocol behind which torch, onnx and simulated executors are the same thing.

An executor owns one device. It is driven by one thread; :meth:`Executor.load` may be called from a second thread
while :meth:`Executor.infer` runs, so that the next variant is warm before the switch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moonjelly.types import Detections, Variant


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as it lies in the repository, read into memory.

    Attributes:
        name: model name.
        architecture: ``darknet`` (definition is the text of a ``.cfg``) or ``pth`` (Jellyfish's checkpoint of such a
            network); ``none`` for a source without content, given to an executor that does not look at pixels.
        definition: text that describes the network.
        weights: content of the weights file.
        classes: class names by index.
        digest: SHA-256 over definition and weights; names derived artifacts.
    """

    name: str
    architecture: str
    definition: str
    weights: bytes
    classes: tuple[str, ...]
    digest: str


class FrameInput(msgspec.Struct, frozen=True, eq=False):
    """One frame of a batch.

    Attributes:
        stream: which client's stream it belongs to.
        frame_id: its number in that stream.
        image: ``(s, s, 3)`` uint8 RGB at the variant's input size, or ``None`` for an executor that does not look.
    """

    stream: str
    frame_id: int
    image: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What an executor runs on.

    Attributes:
        kind: names the profile (``cpu``, ``nvidia-h200``, ``reference-gpu``).
        name: of the hardware, for provenance.
        runtime: ``torch``, ``onnx`` or ``simulated``.
        versions: package and driver versions.
    """

    kind: str
    name: str
    runtime: str
    versions: dict[str, str]


class ArtifactCache(Protocol):
    """Keeps what is expensive to derive from a model (an exported graph, an engine)."""

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Bytes under ``key``, made once."""
        ...


class Executor(Protocol):
    """Runs batches of one variant at a time on one device."""

    @property
    def info(self) -> DeviceInfo:
        """The device."""
        ...

    @property
    def needs_pixels(self) -> bool:
        """Whether :attr:`FrameInput.image` must be set, and a :class:`ModelSource` must have weights."""
        ...

    def load(self, variant: Variant, source: ModelSource, max_batch: int) -> None:
        """Make ``variant`` resident and warm at batches 1..``max_batch``. Does nothing when it is already.

        Raises:
            ModelError: the model cannot be built; nothing of it stays allocated.
        """
        ...

    def unload(self, variant: str) -> None:
        """Free a resident variant; unknown names are ignored."""
        ...

    def resident(self) -> frozenset[str]:
        """Names of the variants that :meth:`infer` accepts."""
        ...

    def infer(self, variant: str, frames: Sequence[FrameInput]) -> list[Detections]:
        """Infer and apply NMS; one :class:`Detections` per frame, in order. Blocks.

        Raises:
            ExecutorError: ``variant`` is not resident, an image has the wrong shape, or the device failed.
        """
        ...

    def close(self) -> None:
        """Free everything. Idempotent."""
        ...
