"""Accuracy and latency of every variant on one kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moonjelly.errors import ProfileError
from moonjelly.types import Variant


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device kind reaches with the variants of one zoo.

    Variants are in zoo order: increasing accuracy and cost, as planning assumes (Jellyfish, section III).

    Attributes:
        device_kind: e.g. ``cpu``, ``reference-gpu``.
        variants: the ``M`` variants.
        accuracy: ``(M,)`` in [0, 1].
        latency_ms: ``(M, B)``; ``latency_ms[j][b - 1]`` is the percentile of the time to infer a batch of ``b``
            (model and NMS), non-decreasing in ``b``.
    """

    device_kind: str
    variants: tuple[Variant, ...]
    accuracy: tuple[float, ...]
    latency_ms: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.variants)
        if count == 0:
            raise ProfileError(f"profile '{self.device_kind}' has no variants")
        if len(self.accuracy) != count or len(self.latency_ms) != count:
            raise ProfileError(
                f"profile '{self.device_kind}' has {count} variants, {len(self.accuracy)} accuracies and "
                f"{len(self.latency_ms)} latency rows; one of each per variant is needed"
            )
        width = len(self.latency_ms[0])
        for variant, accuracy, row in zip(self.variants, self.accuracy, self.latency_ms, strict=True):
            if not 0.0 <= accuracy <= 1.0:
                raise ProfileError(f"accuracy of '{variant.name}' is {accuracy}; it must be in [0, 1]")
            if len(row) != width or width == 0:
                raise ProfileError(
                    f"'{variant.name}' has latencies for {len(row)} batch sizes, others for {width}; "
                    "profile every variant at the same batch sizes 1..B"
                )
            _check_row(variant.name, row)

    @property
    def max_batch(self) -> int:
        """Largest profiled batch ``B``."""
        return len(self.latency_ms[0])

    def latency(self, variant: int, batch: int, speed: float = 1.0) -> float:
        """Milliseconds for ``batch`` frames with variant index ``variant`` on a device of ``speed``."""
        return self.latency_ms[variant][batch - 1] / speed

    def throughput(self, variant: int, batch: int, speed: float = 1.0) -> float:
        """Frames per second at ``batch``: ``1000 b / lat[j, b]`` (Jellyfish, section III)."""
        return 1000.0 * batch / self.latency(variant, batch, speed)


def _check_row(name: str, row: Sequence[float]) -> None:
    for batch, value in enumerate(row, start=1):
        if not 0.0 < value < float("inf"):
            raise ProfileError(f"latency of '{name}' at batch {batch} is {value} ms; it must be positive and finite")
        if batch > 1 and value < row[batch - 2]:
            raise ProfileError(
                f"latency of '{name}' falls from {row[batch - 2]} to {value} ms at batch {batch}; "
                "apply the monotone correction (profiles.monotone) first"
            )
