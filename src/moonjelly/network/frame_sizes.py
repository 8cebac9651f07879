"""Encoded frame sizes, learnt per client and content from what was really encoded.

Prior: Jellyfish's compression ratios at quality 90 (worst case over traffic videos; ordinary footage compresses two to
three times better) times our measured effect of the JPEG quality. What a client's frames really weigh corrects it by a
factor for the content, which follows the scene, and slower factors per input size and per quality, because flat
content gains more from large sizes and low qualities than busy content does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from moonjelly.units import NS_PER_MS

DEFAULT_QUALITY = 90
"""JPEG quality of the prior and of a frame that nothing holds back."""

COMPRESSION_RATIO: Mapping[int, float] = MappingProxyType(
    {
        128: 4.78, 160: 5.148, 192: 5.365, 224: 5.66, 256: 5.782, 288: 6.133, 320: 6.431, 352: 6.556, 384: 6.781,
        416: 6.953, 448: 7.158, 480: 7.421, 512: 7.574, 544: 7.739, 576: 7.968, 608: 8.131, 640: 8.547,
    }
)  # fmt: skip
"""Input size to raw bytes / encoded bytes at quality 90: worst case on Jellyfish's traffic videos."""

_QUALITY_FACTOR = {20: 0.28, 30: 0.33, 40: 0.38, 50: 0.42, 60: 0.47, 70: 0.55, 75: 0.60, 80: 0.68, 85: 0.79, 90: 1.0,
                   95: 1.48, 100: 2.6}  # fmt: skip
"""Encoded bytes relative to quality 90, 4:2:0, mean over three street videos at 128 to 608 pixels."""

LEARN_SIZE_EVERY_NS = 100 * NS_PER_MS
"""Between two frames that a server learns from; scenes change more slowly than that."""
_CONTENT_GAIN = 0.3
_DETAIL_GAIN = 0.15
_SPREAD_GAIN = 0.1
_PRIOR_SPREAD = 0.5
"""Standard deviation of the log size before the first frame."""

MOST_LEARNT = 64
"""Sizes, and qualities, that are told apart: more than a zoo has, few enough to be looked through for every plan."""


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """What is known of one client's encoded sizes. Learns by :func:`observe`.

    Attributes:
        content: log factor of the present content over the prior.
        spread: standard deviation of the log of one frame's size about its expectation.
        by_size: log correction per input size seen.
        by_quality: log correction per quality seen, against the default quality.
        frames: number of frames learnt from.
    """

    content: float = 0.0
    spread: float = _PRIOR_SPREAD
    by_size: Mapping[int, float] = field(default_factory=dict)
    by_quality: Mapping[int, float] = field(default_factory=lambda: {DEFAULT_QUALITY: 0.0})
    frames: int = 0

    def expected_bytes(self, input_size: int, quality: int = DEFAULT_QUALITY) -> float:
        """Expected encoded size of a frame of ``input_size`` x ``input_size`` pixels."""
        return math.exp(
            _log_prior(input_size, quality)
            + self.content
            + _nearest(self.by_size, input_size)
            + _nearest(self.by_quality, quality)
        )

    def of_variants(self, input_sizes: Sequence[int], quality: int = DEFAULT_QUALITY) -> tuple[float, ...]:
        """Expected bytes per variant, for :func:`moonjelly.network.budgets`."""
        return tuple(self.expected_bytes(size, quality) for size in input_sizes)


@lru_cache(maxsize=1024)
def prior_bytes(input_size: int, quality: int = DEFAULT_QUALITY) -> float:
    """Jellyfish's size of a frame (``3 s^2 / ratio``), carried to other sizes and qualities by interpolation."""
    ratio = float(np.interp(input_size, list(COMPRESSION_RATIO), list(COMPRESSION_RATIO.values())))
    factor = float(np.interp(quality, list(_QUALITY_FACTOR), list(_QUALITY_FACTOR.values())))
    return 3.0 * input_size * input_size / ratio * factor


@lru_cache(maxsize=1024)
def _log_prior(input_size: int, quality: int) -> float:
    return math.log(prior_bytes(input_size, quality))


def observe(sizes: FrameSizes, input_size: int, quality: int, encoded_bytes: int) -> FrameSizes:
    """Learn from one encoded frame.

    Raises:
        ValueError: a size that is not positive.
    """
    if encoded_bytes <= 0 or input_size <= 0:
        raise ValueError(f"a frame of {input_size} pixels and {encoded_bytes} bytes was never encoded")
    error = math.log(encoded_bytes / sizes.expected_bytes(input_size, quality))
    if sizes.frames == 0:
        return replace(sizes, content=error, spread=_PRIOR_SPREAD / 2, by_size={input_size: 0.0}, frames=1)
    surprise = abs(error)
    spread = sizes.spread + _SPREAD_GAIN * (1.25 * surprise - sizes.spread)  # 1.25: mean deviation to sigma
    detail = _DETAIL_GAIN * error
    return FrameSizes(
        content=sizes.content + _CONTENT_GAIN * error,
        spread=spread,
        by_size=_corrected(sizes.by_size, input_size, detail, error),
        by_quality=sizes.by_quality
        if quality == DEFAULT_QUALITY
        else _corrected(sizes.by_quality, quality, detail, 0.0),
        frames=sizes.frames + 1,
    )


def _corrected(table: Mapping[int, float], key: int, known: float, new: float) -> Mapping[int, float]:
    """A size seen for the first time takes all of its error but the content's share; later ones learn slowly."""
    if key not in table and len(table) >= MOST_LEARNT:
        return table
    step = known if key in table else (1.0 - _CONTENT_GAIN) * new
    return {**table, key: _nearest(table, key) + step}


def _nearest(table: Mapping[int, float], key: int) -> float:
    if key in table:
        return table[key]
    if not table:
        return 0.0
    return table[min(table, key=lambda known: abs(known - key))]
