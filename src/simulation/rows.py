"""Rows of telemetry from simulated frames: the same schema as a live run's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from moonjelly.adaptation import SkipReason
from moonjelly.network import DEFAULT_RESPONSE_BYTES
from moonjelly.profiles import Profile
from moonjelly.telemetry import FpsRow, FrameRow, ServerFrameRow, ShapingRow
from moonjelly.types import Outcome
from moonjelly.units import BITS_PER_MBIT, NS_PER_MS, NS_PER_S, ClientInstant
from simulation.events import Frame
from simulation.workload import ClientSpec


def sent_row(spec: ClientSpec, frame: Frame, profile: Profile, outcome: Outcome, now: ClientInstant | None) -> FrameRow:
    """A frame that was encoded; ``now`` is when its answer came, ``None`` when none did."""
    answered = outcome in (Outcome.ON_TIME, Outcome.LATE)
    e2e_ms = None if now is None else (now - frame.captured) / NS_PER_MS
    ran = frame.used_variant is not None
    left_ns = frame.ended_ns if ran else frame.received
    server_ms = (left_ns - frame.received) / NS_PER_MS if frame.received else None
    names = profile.variants
    return FrameRow(
        client_id=spec.client_id,
        frame_id=frame.frame_id,
        capture_ts=frame.captured,
        send_ts=frame.sent,
        recv_ts=now,
        outcome=outcome,
        reason="" if outcome is Outcome.ON_TIME else frame.reason,
        e2e_latency=e2e_ms,
        slo_ms=spec.slo_ms,
        desired_model=names[frame.variant].name,
        used_model=names[frame.used_variant].name if answered and frame.used_variant is not None else "",
        next_model=names[frame.next_variant].name,
        input_size=names[frame.variant].input_size,
        jpeg_quality=frame.quality,
        frame_wire_size=frame.size_bytes,
        network_time=None if e2e_ms is None or server_ms is None else e2e_ms - frame.encode_ms - server_ms,
        bandwidth_bps=frame.bandwidth_bps,
        rtt_ms=frame.rtt_ms,
        encode_ms=frame.encode_ms,
        queue_ms=(frame.started_ns - frame.queued_ns) / NS_PER_MS if ran and frame.queued_ns is not None else None,
        infer_ms=(frame.ended_ns - frame.started_ns) / NS_PER_MS if ran else None,
        server_ms=server_ms,
        accuracy=profile.accuracy[frame.used_variant or 0] if outcome is Outcome.ON_TIME else 0.0,
    )


def skipped_row(spec: ClientSpec, frame_id: int, captured: ClientInstant, reason: SkipReason) -> FrameRow:
    """A frame that the client did not send."""
    return FrameRow(
        client_id=spec.client_id,
        frame_id=frame_id,
        capture_ts=captured,
        send_ts=None,
        recv_ts=None,
        outcome=Outcome.REJECTED if reason is SkipReason.REJECTED else Outcome.SKIPPED,
        reason=reason.value,
        e2e_latency=None,
        slo_ms=spec.slo_ms,
        desired_model="",
        used_model="",
        next_model="",
        input_size=None,
        jpeg_quality=None,
        frame_wire_size=None,
        network_time=None,
        bandwidth_bps=None,
        rtt_ms=None,
        encode_ms=None,
        queue_ms=None,
        infer_ms=None,
        server_ms=None,
        accuracy=0.0,
    )


def server_row(frame: Frame, profile: Profile, outcome: Outcome, respond_ms: float, plan_run: int) -> ServerFrameRow:
    """A frame that the server has settled."""
    ran = frame.used_variant is not None
    queued_ns = frame.queued_ns
    return ServerFrameRow(
        client_id=frame.client_id,
        frame_id=frame.frame_id,
        recv_ts=frame.received,
        send_net_time=frame.uplink_ms,
        dispatch_time=0.0 if queued_ns is None else frame.ingest_ms,
        processing_time=0.0 if queued_ns is None else (queued_ns - frame.received) / NS_PER_MS - frame.ingest_ms,
        waiting_time=0.0 if queued_ns is None else ((frame.started_ns or frame.ended_ns) - queued_ns) / NS_PER_MS,
        prediction_time=(frame.ended_ns - frame.started_ns) / NS_PER_MS if ran else 0.0,
        response_time=respond_ms,
        client_bw=frame.bandwidth_bps,
        estimated_bw=frame.estimated_bps,
        request_size=frame.size_bytes,
        response_size=DEFAULT_RESPONSE_BYTES,
        scheduler_run_count=plan_run,
        used_model=profile.variants[frame.used_variant].name if frame.used_variant is not None else "",
        gpu_number=frame.device,
        batch=frame.batch,
        outcome=outcome,
        reason=frame.reason,
        queued_ts=queued_ns,
        deadline_ts=frame.deadline_ns,
    )


def fps_rows(rows: list[FrameRow]) -> Iterator[FpsRow]:
    """Frames of one client by second of their capture."""
    ordered = sorted(rows, key=lambda row: row.capture_ts)
    for second, group in groupby(ordered, key=lambda row: row.capture_ts // NS_PER_S):
        frames = list(group)
        yield FpsRow(
            ts=second * NS_PER_S,
            client_id=frames[0].client_id,
            captured=len(frames),
            sent=sum(row.send_ts is not None for row in frames),
            answered=sum(row.outcome in (Outcome.ON_TIME, Outcome.LATE) for row in frames),
            on_time=sum(row.outcome is Outcome.ON_TIME for row in frames),
        )


def shaping_rows(spec: ClientSpec) -> Iterator[ShapingRow]:
    """Every change of a client's uplink while it takes part."""
    at_ns = spec.joins_ns
    while at_ns < spec.leaves_ns:
        rate = spec.trace.rate_bps(at_ns / NS_PER_S) / BITS_PER_MBIT
        yield ShapingRow(ts=at_ns, link=f"client-{spec.client_id}", bw=rate, actual_bw=rate, late_ms=0.0)
        at_ns = max(at_ns + 1, round(spec.trace.next_change_s(at_ns / NS_PER_S) * NS_PER_S))
