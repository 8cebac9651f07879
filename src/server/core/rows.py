"""Rows of telemetry, built from what the core knew at the time, when nobody waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence

from moonjelly.rpc import messages
from moonjelly.telemetry import DispatchRow, ServerFrameRow
from moonjelly.units import NS_PER_MS, ns_to_ms
from server import ipc
from server.core.frames import PendingFrame

_MAX_UPLINK_MS = 60_000.0
"""What a wrong clock offset may make of an uplink time."""
_RESULT_BYTES = 60
"""Size of a result on the wire without its boxes."""


def stage_times(pending: PendingFrame, answer: ipc.Answer, batch: ipc.Batch, now_ns: int) -> messages.StageTimes:
    """Where a frame that an executor answered spent its time."""
    ready_ns = answer.queued_ns - answer.preprocess_ns
    started_ns = batch.started_ns or answer.queued_ns
    return messages.StageTimes(
        uplink_ms=min(max(0.0, pending.uplink_ms), _MAX_UPLINK_MS),
        dispatch_ms=max(0, ready_ns - pending.received_ns) / NS_PER_MS,
        preprocess_ms=answer.preprocess_ns / NS_PER_MS,
        queue_ms=max(0, started_ns - answer.queued_ns) / NS_PER_MS,
        infer_ms=(batch.ended_ns - batch.started_ns) / NS_PER_MS,
        respond_ms=max(0, now_ns - (batch.ended_ns or answer.queued_ns)) / NS_PER_MS,
        batch=batch.ran,
        device=batch.device,
    )


def frame_row(
    pending: PendingFrame,
    result: messages.Result,
    bandwidths_bps: tuple[float, float],
    variant: str,
    queued_ns: int | None,
) -> ServerFrameRow:
    """How one frame ended. ``bandwidths_bps``: as reported last, and as planned with."""
    times = result.stages
    return ServerFrameRow(
        client_id=pending.session_id,
        frame_id=pending.frame_id,
        recv_ts=pending.received_ns,
        send_net_time=pending.uplink_ms,
        dispatch_time=times.dispatch_ms,
        processing_time=times.preprocess_ms,
        waiting_time=times.queue_ms,
        prediction_time=times.infer_ms,
        response_time=times.respond_ms,
        client_bw=bandwidths_bps[0],
        estimated_bw=bandwidths_bps[1],
        request_size=pending.size_bytes,
        response_size=_RESULT_BYTES + (0 if result.packed is None else len(result.packed.data)),
        scheduler_run_count=result.plan_version,
        used_model=variant,
        gpu_number=pending.device,
        batch=times.batch,
        outcome=result.outcome,
        reason=result.reason,
        queued_ts=queued_ns,
        deadline_ts=pending.run_by_ns or None,
    )


def dispatch_row(batch: ipc.Batch, dropped: int, names: Sequence[str]) -> DispatchRow:
    """One decision of an executor. ``names``: of the variants of the batch's group."""
    return DispatchRow(
        ts=batch.decided_ns,
        gpu_number=batch.device,
        variant=names[batch.variant],
        planned_batch=batch.planned_batch,
        queue=batch.queue,
        batch=batch.ran,
        dropped=dropped,
        head_slack=batch.head_slack_ms,
        infer_ms=ns_to_ms(batch.ended_ns - batch.started_ns),
        planned_variant=names[batch.planned_variant],
        fallbacks=" ".join(names[variant] for variant in batch.fallbacks),
    )
