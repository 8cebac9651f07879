"""A received frame's way to an executor, or to its refusal."""

from __future__ import annotations

from moonjelly.network import LEARN_SIZE_EVERY_NS, observe_preparation, observe_size
from moonjelly.placement import is_broken, link_changed
from moonjelly.rpc import messages
from moonjelly.types import Outcome
from moonjelly.units import ServerInstant
from server.core import events as ev
from server.core.answers import Answers
from server.core.executors import Executors
from server.core.frames import PendingFrame, deadline_of
from server.core.sessions import MAX_RTT_MS, Session
from server.core.state import State


class Intake:
    """Acknowledges a frame, learns from it, gives it its deadline and its device."""

    def __init__(self, state: State, answers: Answers, executors: Executors) -> None:
        self._state = state
        self._settings = state.settings
        self._sessions = state.sessions
        self._devices = state.devices
        self._frames = state.frames
        self._out = state.out
        self._answers = answers
        self._executors = executors

    def receive(self, event: ev.FrameReceived, now_ns: int) -> None:
        """Submit the frame, or answer it at once."""
        frame = event.frame
        session = self._sessions.of_stream(event.stream)
        if session is None:
            return  # its stream has been failed already; what was on its way is not an error of its own
        if not self._admit(session, frame, event.stream):
            return
        received = ServerInstant(event.received_ns)
        ack = messages.Ack(frame.frame_id, received, ServerInstant(now_ns), len(frame.data))
        self._learn(session, frame, now_ns)
        deadline_ns, uplink_ms = deadline_of(
            frame, event.received_ns, session.slo_ms, session.bandwidth_bps, session.rtt_ms
        )
        pending = PendingFrame(
            key=self._frames.next_key(),
            session_id=session.session_id,
            frame_id=frame.frame_id,
            group=session.group,
            device=session.plan.device,
            slot=-1,
            size_bytes=len(frame.data),
            width=frame.width,
            height=frame.height,
            received_ns=event.received_ns,
            deadline_ns=deadline_ns,
            uplink_ms=uplink_ms,
        )
        session.outstanding += 1
        refusal = self._refusal(session, frame, pending, now_ns)
        if refusal is None:  # the executor first: it works while the rest is done
            submit = self._executors.give(pending, self._devices[pending.device], now_ns)
            self._out.append(ev.SubmitFrame(pending.device, submit, frame.data))
        self._out.append(ev.Send(event.stream, ack))
        if refusal is not None:
            self._answers.answer(pending, *refusal, now_ns)

    def _admit(self, session: Session, frame: messages.Frame, stream: int) -> bool:
        """Whether the frame counts at all; says why when it does not."""
        limit = self._settings.max_frame_bytes
        if session.leaving:
            code, text = "FAILED_PRECONDITION", "a frame after goodbye"
        elif frame.frame_id <= session.last_frame_id:
            code = "INVALID_ARGUMENT"
            text = f"frame id {frame.frame_id} after {session.last_frame_id}: ids start at 1 and increase"
        elif len(frame.data) > limit:
            session.last_frame_id = frame.frame_id
            code, text = "RESOURCE_EXHAUSTED", f"frame of {len(frame.data)} bytes; at most {limit} are accepted"
        else:
            session.last_frame_id = frame.frame_id
            session.statistics.frames += 1
            session.statistics.bytes += len(frame.data)
            return True
        self._out.append(ev.Send(stream, messages.StreamError(code, text, frame_id=frame.frame_id)))
        return False

    def _refusal(
        self, session: Session, frame: messages.Frame, pending: PendingFrame, now_ns: int
    ) -> tuple[Outcome, str] | None:
        """Why an admitted frame is answered at once, if it is."""
        variants = len(self._state.input_sizes[session.group])
        if frame.variant >= variants:
            return Outcome.FAILED, f"unknown variant {frame.variant}; the zoo has 0 to {variants - 1}"
        if not session.plan.placed:
            return Outcome.REJECTED, session.plan.reason
        if session.outstanding > self._settings.max_outstanding:
            return Outcome.DROPPED, f"{self._settings.max_outstanding} frames of this client wait already"
        if pending.deadline_ns <= now_ns:
            return (
                Outcome.DROPPED,
                f"its deadline passed on the way: capture to reception took {pending.uplink_ms:.1f} ms",
            )
        device = self._devices[pending.device]
        if not device.up:
            other = self._executors.other(session.group, device)
            if other is None:
                return Outcome.FAILED, f"device {device.device_id} is restarting and no other serves its group"
            pending.device = other.device_id
            device = other
        if not len(device.pool):
            return Outcome.DROPPED, f"device {device.device_id} holds {self._settings.slots} frames, its limit"
        return None

    def _learn(self, session: Session, frame: messages.Frame, now_ns: int) -> None:
        """What the frame tells of its client, its link and its content."""
        if frame.rtt_ms > 0.0:
            session.rtt_ms = min(frame.rtt_ms, MAX_RTT_MS)
        session.preparation_ms = observe_preparation(session.preparation_ms, frame.captured_ns, frame.sent_ns)
        if frame.data and now_ns - session.learnt_ns >= LEARN_SIZE_EVERY_NS:
            session.learnt_ns = now_ns
            side = max(1, min(frame.width, frame.height))
            session.sizes = observe_size(session.sizes, side, frame.quality or 90, len(frame.data))
        if frame.bandwidth_bps <= 0.0:
            return
        session.bandwidth_bps = frame.bandwidth_bps
        if link_changed(frame.bandwidth_bps, session.snapshot_bandwidth_bps) and is_broken(
            session.place, self._state.planned_budget(session), self._state.latency_factor
        ):
            self._state.planning.want("bandwidth")
