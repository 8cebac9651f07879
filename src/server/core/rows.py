"""What the core tells of frames and batches, to their clients and to telemetry."""

from __future__ import annotations

from moonjelly.rpc import messages
from moonjelly.units import NS_PER_MS
from server import ipc
from server.core.frames import PendingFrame
from server.records import DispatchRecord, FrameRecord

_MAX_UPLINK_MS = 60_000.0
"""What a wrong clock offset may make of an uplink time."""


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


def frame_record(
    pending: PendingFrame,
    result: messages.Result,
    bandwidths_bps: tuple[float, float],
    variant: str,
    queued_ns: int | None,
) -> FrameRecord:
    """How one frame ended. ``bandwidths_bps``: as reported last, and as planned with."""
    return FrameRecord(
        pending.session_id,
        pending.frame_id,
        pending.device,
        pending.received_ns,
        pending.uplink_ms,
        result.stages,
        bandwidths_bps[0],
        bandwidths_bps[1],
        pending.size_bytes,
        0 if result.packed is None else len(result.packed.data),
        result.plan_version,
        variant,
        result.outcome,
        result.reason,
        queued_ns,
        pending.run_by_ns,
        pending.group,
    )


def dispatch_record(
    batch: ipc.Batch, dropped: int, names: tuple[str, ...], overdue: tuple[tuple[int, int, int], ...]
) -> DispatchRecord:
    """One decision of an executor. ``names``: of the variants of the batch's group; ``overdue``: see the record."""
    return DispatchRecord(
        device=batch.device,
        names=names,
        variant=batch.variant,
        planned_variant=batch.planned_variant,
        fallbacks=batch.fallbacks,
        planned_batch=batch.planned_batch,
        queue=batch.queue,
        ran=batch.ran,
        dropped=dropped,
        head_slack_ms=batch.head_slack_ms,
        speed=batch.speed,
        reserve_ns=batch.reserve_ns,
        decided_ns=batch.decided_ns,
        started_ns=batch.started_ns,
        ended_ns=batch.ended_ns,
        group=batch.group,
        overdue=overdue,
    )
