"""An executor that answers after a profile's latency: how everything runs without the device.

Nothing on the interface tells it from a real one. It sleeps to an absolute instant and never spins.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import ExecutorError, ModelError
from moonjelly.inference.protocol import DeviceInfo, FrameInput, ModelSource
from moonjelly.profiles import Profile
from moonjelly.types import Detections, Variant
from moonjelly.units import NS_PER_S, ms_to_ns
from moonjelly.version import __version__


class Answers(Protocol):
    """Where a simulated executor's detections come from: recorded ones, or synthetic ones."""

    def detections(self, variant: str, stream: str, frame_id: int) -> Detections:
        """What ``variant`` is said to see in a frame."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticAnswers:
    """One to eight boxes that drift with the frame's number: the same for the same frame, whoever asks.

    Attributes:
        class_count: classes to draw from.
        seed: of the boxes.
    """

    class_count: int = 1
    seed: int = 0

    def detections(self, variant: str, stream: str, frame_id: int) -> Detections:
        """Boxes of a frame; they do not depend on ``variant``."""
        stretch, index = divmod(frame_id, _STRETCH)
        drawn = _draw(self.seed, self.class_count, stream)
        return Detections(_boxes(drawn, stretch)[index], drawn.scores, drawn.classes)


_STRETCH = 64
"""Frames whose boxes are computed together: numpy takes as long for one of them."""
_STREAMS = 512
"""Streams at a time; what was kept for those of clients that have gone makes room."""


@dataclass(frozen=True, eq=False, slots=True)
class _Drawn:
    """What the boxes of one stream have in common over its frames."""

    size: NDArray[np.float32]
    room: NDArray[np.float32]
    start: NDArray[np.float32]
    velocity: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]


@lru_cache(maxsize=_STREAMS)
def _boxes(drawn: _Drawn, stretch: int) -> NDArray[np.float32]:
    """``(_STRETCH, n, 4)``: the boxes of one stretch of frames."""
    frames = np.arange(stretch * _STRETCH, (stretch + 1) * _STRETCH, dtype=np.float32)[:, None, None]
    corners = (drawn.start + frames * drawn.velocity) % 1.0 * drawn.room
    return np.concatenate([corners, corners + drawn.size], axis=2, dtype=np.float32)


@lru_cache(maxsize=_STREAMS)
def _draw(seed: int, class_count: int, stream: str) -> _Drawn:
    draw = np.random.default_rng([seed, *stream.encode()])
    count = int(draw.integers(1, 9))
    size = draw.uniform(0.04, 0.2, (count, 2)).astype(np.float32)
    return _Drawn(
        size=size,
        room=1.0 - size,
        start=draw.uniform(0.0, 1.0, (count, 2)).astype(np.float32),
        velocity=draw.uniform(-0.01, 0.01, (count, 2)).astype(np.float32),
        scores=np.sort(draw.uniform(0.3, 1.0, count))[::-1].astype(np.float32),
        classes=draw.integers(0, class_count, count).astype(np.int32),
    )


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """How a simulated device behaves.

    Attributes:
        jitter: latency is uniform within this fraction of the profile's on either side.
        seed: of the jitter.
        scale: factor on the profile's latency; 0 answers at once, to measure what is around an executor.
    """

    jitter: float = 0.02
    seed: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.jitter < 1.0 and self.scale >= 0.0):
            raise ExecutorError(f"{self}: jitter must be in [0, 1), scale not negative")


class SimulatedExecutor:
    """Implements :class:`~moonjelly.inference.protocol.Executor` from a profile.

    Args:
        profile: latencies to answer after. Read with the 50th percentile it behaves as the device did; the planner
            keeps its own reading.
        options: jitter and scale.
        answers: the detections; ``None``: synthetic ones of one class.
    """

    def __init__(
        self, profile: Profile, options: SimulationOptions | None = None, answers: Answers | None = None
    ) -> None:
        self._options = options if options is not None else SimulationOptions()
        self._answers = answers if answers is not None else SyntheticAnswers()
        self._profile = profile
        self._rows = {variant.name: row for row, variant in enumerate(profile.variants)}
        self._draw = np.random.default_rng(self._options.seed)
        self._max_batch: dict[str, int] = {}

    @property
    def info(self) -> DeviceInfo:
        """The profile's device kind."""
        kind = self._profile.device_kind
        return DeviceInfo(kind, f"simulated {kind}", "simulated", {"moonjelly": __version__})

    @property
    def needs_pixels(self) -> bool:
        """It does not look."""
        return False

    def load(self, variant: Variant, source: ModelSource, max_batch: int) -> None:
        """Make ``variant`` resident.

        Raises:
            ModelError: the profile does not have it, or not at this batch size.
        """
        if self._max_batch.get(variant.name, 0) >= max_batch:
            return
        if variant.name not in self._rows:
            raise ModelError(f"profile '{self._profile.device_kind}' has no variant '{variant.name}'")
        if not 1 <= max_batch <= self._profile.max_batch:
            raise ModelError(
                f"variant '{variant.name}' is to run at batches up to {max_batch}; "
                f"profile '{self._profile.device_kind}' has 1..{self._profile.max_batch}"
            )
        self._max_batch[variant.name] = max_batch

    def unload(self, variant: str) -> None:
        """Forget a variant."""
        self._max_batch.pop(variant, None)

    def resident(self) -> frozenset[str]:
        """Names of loaded variants."""
        return frozenset(self._max_batch)

    def infer(self, variant: str, frames: Sequence[FrameInput]) -> list[Detections]:
        """Answer after the profile's latency.

        Raises:
            ExecutorError: ``variant`` is not resident, or the batch is empty or larger than it was loaded for.
        """
        start_ns = time.monotonic_ns()
        largest = self._max_batch.get(variant)
        if largest is None:
            raise ExecutorError(f"variant '{variant}' is not resident; load it first")
        if not 1 <= len(frames) <= largest:
            raise ExecutorError(f"variant '{variant}' was loaded for batches 1..{largest}, not {len(frames)}")
        answers = [self._answers.detections(variant, frame.stream, frame.frame_id) for frame in frames]
        _sleep_until(start_ns + self._latency_ns(variant, len(frames)))
        return answers

    def close(self) -> None:
        """Forget everything."""
        self._max_batch.clear()

    def _latency_ns(self, variant: str, batch: int) -> int:
        if self._options.scale == 0.0:
            return 0
        factor = self._options.scale * (1.0 + self._options.jitter * self._draw.uniform(-1.0, 1.0))
        return ms_to_ns(factor * self._profile.latency(self._rows[variant], batch))


def _sleep_until(instant_ns: int) -> None:
    """Sleep, in one go, to an instant of the monotonic clock; late by the kernel's timer slack (50 us), never early."""
    left_ns = instant_ns - time.monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / NS_PER_S)
