"""Latency budgets from what is measured of a client's link (Jellyfish, section III-B)."""

from __future__ import annotations

from collections.abc import Sequence

from moonjelly.units import transfer_ms


def budgets_ms(
    frame_bytes: Sequence[float],
    *,
    rate_bps: float,
    fps: float,
    slo_ms: float,
    round_trip_ms: float = 0.0,
    overhead_ms: float = 0.0,
) -> tuple[float, ...]:
    """What a deadline leaves for waiting and inference, per variant.

    Args:
        frame_bytes: expected bytes of a frame for each variant, the answer's included.
        rate_bps: measured uplink rate; 0 for a link that is down.
        fps: nominal frame rate.
        slo_ms: end-to-end deadline.
        round_trip_ms: propagation both ways.
        overhead_ms: the server's dispatch and preprocessing, with their noise.

    Returns:
        Per variant ``slo - transfer - round trip - overhead``; 0 where that is negative or where the link cannot
        carry the variant's frames at ``fps``.
    """
    return tuple(
        max(0.0, slo_ms - transfer_ms(size, rate_bps) - round_trip_ms - overhead_ms)
        if rate_bps > 8.0 * size * fps
        else 0.0
        for size in frame_bytes
    )
