"""Records of telemetry: what a row says, taken while frames wait, and made into the row where nobody waits.

The endpoint makes and encodes two of them per frame, so they are structs made in C that hold what is at hand. The
process that writes the files makes the rows.
"""

from __future__ import annotations

import msgspec

from moonjelly.rpc.messages import StageTimes
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome
from moonjelly.units import ns_to_ms

RESULT_BYTES = 60
"""Size of a result on the wire without its boxes."""


class FrameRecord(msgspec.Struct, frozen=True, array_like=True):
    """How one frame ended.

    Attributes:
        uplink_ms: capture to reception.
        reported_bps: the client's bandwidth as it reported last.
        planned_bps: that planning used.
        boxes_bytes: size of its boxes on the wire.
        group: model group.
        variant: name of the one that answered it; empty if none ran.
        queued_ns: when it entered the executor's queue; ``None``: never.
        run_by_ns: latest instant at which its batch may end; 0: it went to no executor.
    """

    session: int
    frame_id: int
    device: int
    received_ns: int
    uplink_ms: float
    stages: StageTimes
    reported_bps: float
    planned_bps: float
    size_bytes: int
    boxes_bytes: int
    plan_version: int
    variant: str
    outcome: Outcome
    reason: str
    queued_ns: int | None
    run_by_ns: int
    group: str

    def row(self) -> ServerFrameRow:
        """For ``frame_stats.csv``."""
        stages = self.stages
        return ServerFrameRow(
            client_id=self.session,
            frame_id=self.frame_id,
            recv_ts=self.received_ns,
            send_net_time=self.uplink_ms,
            dispatch_time=stages.dispatch_ms,
            processing_time=stages.preprocess_ms,
            waiting_time=stages.queue_ms,
            prediction_time=stages.infer_ms,
            response_time=stages.respond_ms,
            client_bw=self.reported_bps,
            estimated_bw=self.planned_bps,
            request_size=self.size_bytes,
            response_size=RESULT_BYTES + self.boxes_bytes,
            scheduler_run_count=self.plan_version,
            used_model=self.variant,
            gpu_number=self.device,
            batch=stages.batch,
            outcome=self.outcome,
            reason=self.reason,
            queued_ts=self.queued_ns,
            deadline_ts=self.run_by_ns or None,
            group=self.group,
        )


class DispatchRecord(msgspec.Struct, frozen=True, array_like=True):
    """One decision of an executor.

    Attributes:
        names: of the variants of the batch's group.
        overdue: (session, frame, when it entered the queue) of its frames whose rows were written before, when their
            deadlines passed.
    """

    device: int
    names: tuple[str, ...]
    variant: int
    planned_variant: int
    fallbacks: tuple[int, ...]
    planned_batch: int
    queue: int
    ran: int
    dropped: int
    head_slack_ms: float
    speed: float
    decided_ns: int
    started_ns: int
    ended_ns: int
    group: str
    overdue: tuple[tuple[int, int, int], ...] = ()
    reserve_ns: int = 0

    def row(self) -> DispatchRow:
        """For ``dispatch.csv``."""
        return DispatchRow(
            ts=self.decided_ns,
            gpu_number=self.device,
            variant=self.names[self.variant],
            planned_batch=self.planned_batch,
            queue=self.queue,
            batch=self.ran,
            dropped=self.dropped,
            head_slack=self.head_slack_ms,
            infer_ms=ns_to_ms(self.ended_ns - self.started_ns),
            planned_variant=self.names[self.planned_variant],
            fallbacks=" ".join(self.names[variant] for variant in self.fallbacks),
            speed=self.speed,
            group=self.group,
            overdue=" ".join(f"{session}:{frame}:{queued_ns}" for session, frame, queued_ns in self.overdue),
            reserve_ms=ns_to_ms(self.reserve_ns),
        )


Record = FrameRecord | DispatchRecord | PlanRow
"""A planning run is rare: its row is made at once."""
