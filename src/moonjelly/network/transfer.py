"""Transfer-time model: what the network takes from a deadline and what it leaves (Jellyfish, section III)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

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
    """Per variant, the time that is left for it on the smallest frames that it is planned for: one size below its own.

    A variant keeps nearly all of its accuracy on such frames, and is better than the variant of their size
    (``docs/profiling.md``), so that a link which carries no larger ones should not keep a device from running it.

    Args:
        budget_ms: :func:`budgets`, which are for frames of each variant's own size.
        input_sizes: side in pixels per variant.
    """
    return tuple(
        max(own_ms, budget_ms[smaller])
        for own_ms, smaller in zip(budget_ms, _one_size_smaller(tuple(input_sizes)), strict=True)
    )


def answer_by_ns(captured_ns: ServerInstant, slo_ms: float, rtt_ms: float) -> int:
    """Latest instant at which the answer may leave the server: capture plus deadline, less the expected downlink.

    Args:
        captured_ns: on the server's clock.
        slo_ms: end-to-end deadline.
        rtt_ms: unloaded round trip; 0: not known.
    """
    downlink_ms = rtt_ms / 2.0 if rtt_ms > 0.0 else UNKNOWN_DOWNLINK_MS
    return captured_ns + ms_to_ns(slo_ms - min(downlink_ms, slo_ms))


@cache
def _one_size_smaller(input_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Per variant, the one before it whose frames are of the next smaller size; itself where there is none."""
    smaller = []
    for variant, size in enumerate(input_sizes):
        below = [other for other in range(variant) if input_sizes[other] < size]
        smaller.append(max(below, key=lambda other: input_sizes[other], default=variant))
    return tuple(smaller)


def _budget(left_ms: float, size_bytes: float, fps: float, bandwidth_bps: float) -> float:
    carried = bandwidth_bps > size_bytes * 8.0 * fps
    return max(0.0, left_ms) if carried and math.isfinite(left_ms) else 0.0
