"""Transfer-time model: what the network takes from a deadline and what it leaves (Jellyfish, section III)."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache

from moonjelly.units import ClientInstant, ServerInstant, ms_to_ns, ns_to_ms, transfer_ms

DEFAULT_RESPONSE_BYTES = 600
"""A result with a dozen typed boxes: what is taken of a client that has had none."""
_RESPONSE_WEIGHT = 0.1
"""Of the newest answer: scenes change slower than results come."""
INITIAL_BANDWIDTH_BPS = 8_000_000.0
"""Assumed of a client that has not reported any: a mediocre LTE uplink."""
_PREPARATION_WEIGHT = 0.1
_PREPARATION_STEP_MS = 10.0
"""A frame that took more than this above or below the rest counts as one that took so much: hosts hiccup."""
FIXED_OVERHEAD_MS = 2.0
"""Of the server's share of a deadline: for all that is not measured (Jellyfish, section III)."""
SMALLEST_SHARE = 0.4
"""Of a variant's side, that the frames have which it is planned for: what smaller ones are worth nobody has measured.
The next smaller size of the zoo is always allowed."""
UNKNOWN_DOWNLINK_MS = 1.0
"""What an answer takes to a client that has not reported its round trip."""


def observe_response(expected_bytes: float, size_bytes: int) -> float:
    """What an answer to a client is expected to weigh, after one of ``size_bytes``."""
    return expected_bytes + _RESPONSE_WEIGHT * (size_bytes - expected_bytes)


def observe_preparation(expected_ms: float, captured: ClientInstant, sent: ClientInstant) -> float:
    """What a client is expected to take from capture to sending (decode, resize, encode), after one more frame.

    A mean of late that no single frame moves by more than 1 ms (Huber, Robust Estimation of a Location Parameter,
    Annals of Mathematical Statistics, 1964); a client that always takes longer is known for it within a few seconds.
    """
    error_ms = max(0.0, ns_to_ms(sent - captured)) - expected_ms
    return expected_ms + _PREPARATION_WEIGHT * max(-_PREPARATION_STEP_MS, min(error_ms, _PREPARATION_STEP_MS))


def left_ms(slo_ms: float, preparation_ms: float, rtt_ms: float, overhead_ms: float) -> float:
    """What a deadline leaves for uplink, waiting and inference: of the plan's budgets and of a client's frames alike.

    At most clients what nobody measures is mostly their preparation, so that ``FIXED_OVERHEAD_MS`` of the server's
    share pays for as much of it: what is known must not be paid twice.

    Args:
        slo_ms: end-to-end deadline.
        preparation_ms: capture to sending, at the client.
        rtt_ms: unloaded round trip.
        overhead_ms: the server's own share beside waiting and inference, ``FIXED_OVERHEAD_MS`` included.
    """
    return slo_ms - max(0.0, preparation_ms - FIXED_OVERHEAD_MS) - rtt_ms - overhead_ms


def budgets(
    slo_ms: float,
    fps: float,
    frame_bytes: Sequence[float],
    bandwidth_bps: float,
    rtt_ms: float,
    overhead_ms: float,
    response_bytes: float = DEFAULT_RESPONSE_BYTES,
    preparation_ms: float = 0.0,
) -> tuple[float, ...]:
    """Per variant, the time that is left for waiting and inference (``planning.problem.Client.budget_ms``).

    Jellyfish's rule, and less what the client takes before it sends: ``max(0, slo - preparation - network - overhead)``
    where the link carries ``fps`` such frames, else 0. The network takes ``size / B + 2 w``, with the answer's size
    counted to the frame's.

    Args:
        slo_ms: end-to-end deadline.
        fps: nominal frame rate.
        frame_bytes: expected encoded size per variant, see :mod:`moonjelly.network.frame_sizes`.
        bandwidth_bps: uplink; 0 or less: none.
        rtt_ms: unloaded round trip.
        overhead_ms: the server's own share beside waiting and inference.
        response_bytes: of an answer.
        preparation_ms: capture to sending, at the client; see :func:`left_ms`.
    """
    there_ms = left_ms(slo_ms, preparation_ms, rtt_ms, overhead_ms)
    return tuple(
        _budget(there_ms - transfer_ms(size + response_bytes, bandwidth_bps), size, fps, bandwidth_bps)
        for size in frame_bytes
    )


def planned_budgets(budget_ms: Sequence[float], input_sizes: Sequence[int]) -> tuple[float, ...]:
    """Per variant, the time that is left for it on the smallest frames that it is planned for.

    They are one size below its own, or one below the largest that the link carries, whatever runs, where those are
    smaller; but of :data:`SMALLEST_SHARE` of its side at least. A variant is better on such frames than the variant of
    their size (``docs/profiling.md``), so that a link which carries no larger ones should not keep a device from
    running it. By the time that it takes itself it should make a client's frames smaller by no more than one size.

    Args:
        budget_ms: :func:`budgets`, which are for frames of each variant's own size.
        input_sizes: side in pixels per variant.
    """
    carried = max((size for size, left in zip(input_sizes, budget_ms, strict=True) if left > 0.0), default=0)
    planned = _smallest_frames(tuple(input_sizes), carried)
    return tuple(max(own_ms, budget_ms[frames]) for own_ms, frames in zip(budget_ms, planned, strict=True))


def answer_by_ns(captured_ns: ServerInstant, slo_ms: float, rtt_ms: float) -> int:
    """Latest instant at which the answer may leave the server: capture plus deadline, less the expected downlink.

    Args:
        captured_ns: on the server's clock.
        slo_ms: end-to-end deadline.
        rtt_ms: unloaded round trip; 0: not known.
    """
    downlink_ms = rtt_ms / 2.0 if rtt_ms > 0.0 else UNKNOWN_DOWNLINK_MS
    return captured_ns + ms_to_ns(slo_ms - min(downlink_ms, slo_ms))


@lru_cache(maxsize=1024)
def _smallest_frames(input_sizes: tuple[int, ...], carried: int) -> tuple[int, ...]:
    """Per variant, the one whose frames are the smallest that it is planned for, itself or one before it.

    Args:
        input_sizes: side per variant.
        carried: side of the largest frames that the link carries.
    """
    planned = []
    for variant, own in enumerate(input_sizes):
        variant_of = {size: other for other, size in enumerate(input_sizes[: variant + 1]) if size <= own}
        sizes = sorted(variant_of)
        one_below = len(sizes) - 2
        below_carried = bisect_right(sizes, carried) - 2
        least = bisect_left(sizes, SMALLEST_SHARE * own)
        planned.append(variant_of[sizes[max(0, min(one_below, max(below_carried, least)))]])
    return tuple(planned)


def _budget(left_ms: float, size_bytes: float, fps: float, bandwidth_bps: float) -> float:
    carried = bandwidth_bps > size_bytes * 8.0 * fps
    return max(0.0, left_ms) if carried and math.isfinite(left_ms) else 0.0
