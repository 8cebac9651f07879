"""Answers: how each frame ends, for its client and for the log."""

from __future__ import annotations

import math
from functools import partial

from moonjelly import latency_factor
from moonjelly.network import observe_response
from moonjelly.placement import asked_variant
from moonjelly.rpc import messages
from moonjelly.types import Detections, Outcome
from moonjelly.units import ServerInstant, ms_to_ns, ns_to_ms
from server import ipc
from server.core import events as ev
from server.core.devices import DeviceState
from server.core.frames import PendingFrame
from server.core.rows import dispatch_record, frame_record, stage_times
from server.core.sessions import Session
from server.core.state import State
from server.core.streams import Streams
from server.records import RESULT_BYTES

_NO_TIMES = messages.StageTimes()
_NO_BOXES = Detections.empty()
_NOTHING = messages.PackedDetections(0, b"")


class Answers:
    """Exactly one result per frame."""

    def __init__(self, state: State, streams: Streams) -> None:
        self._state = state
        self._rules = state.settings.rules
        self._names = state.names
        self._sessions = state.sessions
        self._devices = state.devices
        self._frames = state.frames
        self._out = state.out
        self._streams = streams

    def batch(self, event: ev.BatchFinished, now_ns: int) -> None:
        """Free the slots of an executor's batch and answer what has no answer yet."""
        batch = event.batch
        device = self._devices[batch.device]
        dropped, overdue = 0, []
        promised_ns, as_planned = self._promise(batch, device)
        for answer in batch.answers:
            pending = self._frames.settle(answer.key)
            if pending is None:
                continue  # answered by an executor that was declared dead meanwhile
            device.pool.free(pending.slot)
            del device.frames[pending.slot]
            dropped += answer.outcome is Outcome.DROPPED
            if answer.outcome is not Outcome.FAILED and pending.run_by_ns - answer.queued_ns >= promised_ns:
                kept = as_planned and batch.ended_ns <= pending.run_by_ns
                self._state.promises = latency_factor.observe(self._state.promises, kept)
            if not pending.answered:
                self._settle(pending, answer, batch, device, now_ns)
            else:
                overdue.append((pending.session_id, pending.frame_id, answer.queued_ns))
        if batch.ran or dropped:
            self._out.append(ev.Record(dispatch_record(batch, dropped, self._names[batch.group], tuple(overdue))))

    def _promise(self, batch: ipc.Batch, device: DeviceState) -> tuple[float, bool]:
        """What the planned batch takes, ns, and whether this one ran so.

        Of the frames that came with at least so much time left, all are to be run in time by the planned variant.
        None did, and the time is infinite, where the factor is fixed or the dispatcher was not asked.
        """
        if self._rules.latency_factor is not None or not batch.planned_batch:
            return math.inf, False
        profile = self._rules.profiles[device.kind, batch.group]
        planned_ns = ms_to_ns(profile.latency(batch.planned_variant, batch.planned_batch, batch.speed))
        if not batch.ran or batch.variant < batch.planned_variant:
            return planned_ns, False
        profiled_ns = ms_to_ns(profile.latency(batch.variant, batch.ran, batch.speed))
        return planned_ns, batch.ended_ns - batch.started_ns <= latency_factor.overrun_ns(profiled_ns)

    def _settle(
        self, pending: PendingFrame, answer: ipc.Answer, batch: ipc.Batch, device: DeviceState, now_ns: int
    ) -> None:
        times = stage_times(pending, answer, batch, now_ns)
        if answer.outcome is not Outcome.ON_TIME:
            self.answer(
                pending,
                answer.outcome,
                answer.reason,
                now_ns,
                times=times,
                variant=batch.variant,
                queued_ns=answer.queued_ns,
            )
            return
        device.observe(times.dispatch_ms + times.preprocess_ms + times.respond_ms, times.respond_ms)
        late_ns = now_ns - pending.deadline_ns
        outcome = Outcome.LATE if late_ns > 0 else Outcome.ON_TIME
        reason = f"{ns_to_ms(late_ns):.1f} ms after its deadline" if late_ns > 0 else ""
        self.answer(pending, outcome, reason, now_ns, answer.detections, times, batch.variant, answer.queued_ns)

    def answer(
        self,
        pending: PendingFrame,
        outcome: Outcome,
        reason: str,
        now_ns: int,
        packed: messages.PackedDetections = _NOTHING,
        times: messages.StageTimes = _NO_TIMES,
        variant: int = 0,
        queued_ns: int | None = None,
    ) -> None:
        """Send a frame's result, or keep it while its client is lost; log it."""
        pending.answered = True
        session = self._sessions.get(pending.session_id)
        if session is None:
            return  # its time to live is over
        session.outstanding -= 1
        session.statistics.count(outcome)
        if packed is not _NOTHING:
            session.response_bytes = observe_response(session.response_bytes, RESULT_BYTES + len(packed.data))
        result = messages.Result(
            frame_id=pending.frame_id,
            outcome=outcome,
            reason=reason,
            detections=_NO_BOXES,
            variant=variant,
            next_variant=self._next_variant(session),
            plan_version=session.plan.version,
            stages=times,
            sent_ns=ServerInstant(now_ns),
            packed=packed,
        )
        if session.stream is None:
            session.undelivered.append(result)
        else:
            self._out.append(ev.Send(session.stream, result))
        bandwidths = (session.bandwidth_bps, session.planned_bandwidth_bps)
        name = self._names[pending.group][variant] if times.batch else ""
        self._out.append(ev.Record(frame_record(pending, result, bandwidths, name, queued_ns)))
        self._streams.end_if_done(session)

    def _next_variant(self, session: Session) -> int:
        return asked_variant(
            session.place,
            session.bandwidth_bps,
            session.planned_bandwidth_bps,
            partial(self._state.budget, session),
            self._state.latency_factor,
        )

    def overdue(self, now_ns: int) -> None:
        """Answer the frames whose deadline has passed, whatever their devices do."""
        for pending in self._frames.overdue(now_ns):
            reason = f"its deadline passed while it waited for device {pending.device}"
            self.answer(pending, Outcome.DROPPED, reason, now_ns)
