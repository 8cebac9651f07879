"""The core: one method per kind of event.

Invariants
* Every frame that is acknowledged gets exactly one result.
* A frame is answered at the latest a few milliseconds after its deadline, whatever its device is doing.
* A slot is taken from the frame's submission until its executor has answered it or died.
* A dead executor loses only the frames of its running batch; the others go to another device that can make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from moonjelly.errors import MoonjellyError
from moonjelly.network import observe_size
from moonjelly.planning import keep_previous
from moonjelly.planning.best_effort import devices_for_starved
from moonjelly.planning.problem import Assignment, Plan, Problem
from moonjelly.rpc import messages
from moonjelly.telemetry import DispatchRow, PlanRow, ServerFrameRow
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S, ServerInstant, ms_to_ns, ns_to_ms
from moonjelly.version import __version__
from server import ipc
from server.core import events as ev
from server.core.devices import DeviceState
from server.core.frames import FrameBook, PendingFrame, deadline_of
from server.core.placement import (
    Rules,
    bandwidth_bps,
    best_effort,
    budget_of,
    lowered,
    models_of,
    overhead_ms,
    placed,
    problem_of,
    provisional,
    rejected,
    request_accuracy,
    same_place,
)
from server.core.planner import PLANNER_PATIENCE_NS, PlanClock
from server.core.sessions import Session, SessionTable, check_hello
from server.core.slots import SlotPool

HANG_NS = 10 * NS_PER_S
"""A device that holds a frame for longer hangs."""
_LEARN_SIZE_EVERY_NS = 100 * NS_PER_MS
_BANDWIDTH_CHANGE = 0.15
"""A report that differs by more than this share from what was planned with is looked at."""
_NO_TIMES = messages.StageTimes()
_NO_BOXES = Detections.empty()
_NOTHING = messages.PackedDetections(0, b"")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the core is told once.

    Attributes:
        zoos: group to what its clients are told of its zoo.
        speeds: per device.
        slots: per device.
        policy: name, for the log.
    """

    zoos: Mapping[str, messages.ZooInfo]
    rules: Rules
    speeds: Sequence[float]
    slots: int
    policy: str
    interval_ns: int
    plan_budget_ns: int
    session_ttl_ns: int
    max_sessions: int
    max_frame_bytes: int
    max_outstanding: int


class Core:
    """State of the server. Feed it events in order; carry out the instructions in order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = settings.rules
        self._input_sizes = {
            group: tuple(variant.input_size for variant in zoo.variants) for group, zoo in settings.zoos.items()
        }
        self._names = {group: tuple(variant.name for variant in zoo.variants) for group, zoo in settings.zoos.items()}
        self.sessions = SessionTable(settings.session_ttl_ns, settings.max_sessions)
        self.devices = [
            DeviceState(device_id, speed, SlotPool(settings.slots)) for device_id, speed in enumerate(settings.speeds)
        ]
        self._frames = FrameBook()
        self._planning = PlanClock(settings.interval_ns, settings.plan_budget_ns)
        self._plan: Plan | None = None
        self._drain: messages.Drain | None = None
        self._out: list[ev.Instruction] = []
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            ev.FrameReceived: self._frame,
            ev.BatchFinished: self._batch,
            ev.PingReceived: self._ping,
            ev.Joined: self._join,
            ev.ByeReceived: self._bye,
            ev.MessageRefused: self._refused,
            ev.InputEnded: self._input_ended,
            ev.StreamClosed: self._closed,
            ev.DeviceUp: self._device_up,
            ev.DeviceDown: self._device_down,
            ev.VariantSwitched: self._switched,
            ev.PlanMade: self._plan_made,
            ev.PlannerLost: self._planner_lost,
            ev.DrainBegan: self._drain_began,
            ev.Woken: self._woken,
        }

    def handle(self, event: ev.Event, now_ns: int) -> list[ev.Instruction]:
        """What is to be done about ``event``, which happened at ``now_ns``."""
        self._out = []
        self._handlers[type(event)](event, now_ns)
        if self._planning.may_start():
            self._start_plan(now_ns)
        return self._out

    def wake_ns(self) -> int | None:
        """When to send :class:`~server.core.events.Woken`, if nothing else happens before."""
        instants = (
            self._frames.watch_ns(),
            self._planning.next_ns(periodic=len(self.sessions) > 0),
            self.sessions.next_expiry_ns(),
        )
        return min((instant for instant in instants if instant is not None), default=None)

    @property
    def plans(self) -> int:
        """Planning runs so far."""
        return self._planning.run

    @property
    def pending_frames(self) -> int:
        """Frames that an executor holds."""
        return len(self._frames)

    # -- streams ------------------------------------------------------------------------------------------------------

    def _join(self, event: ev.Joined, now_ns: int) -> None:
        if self._drain is not None:
            self._fail_stream(event.stream, "UNAVAILABLE", self._drain.reason)
            return
        try:
            if event.hello.resume_token:
                session, old = self.sessions.resume(event.stream, event.hello.resume_token)
                if old is not None:
                    self._fail_stream(old, "ABORTED", "the session was resumed on another stream")
            else:
                check_hello(event.hello, tuple(self._settings.zoos))
                session, old = self.sessions.open(event.stream, event.hello, event.token), None
                self._place_provisionally(session, now_ns)
        except MoonjellyError as fault:
            self._fail_stream(event.stream, fault.wire_code, str(fault))
            return
        resumed = bool(event.hello.resume_token)
        self._send(event.stream, self._welcome(session, resumed))
        while session.undelivered:
            self._send(event.stream, session.undelivered.popleft())
        self._planning.want("resume" if resumed else "join")

    def _welcome(self, session: Session, resumed: bool) -> messages.Welcome:
        return messages.Welcome(
            session_id=session.session_id,
            token=session.token,
            session_ttl_s=self._settings.session_ttl_ns / 1e9,
            resumed=resumed,
            last_frame_id=session.last_frame_id,
            zoo=self._settings.zoos[session.group],
            plan=session.plan,
            max_frame_bytes=self._settings.max_frame_bytes,
            max_outstanding=self._settings.max_outstanding,
            server_version=__version__,
        )

    def _ping(self, event: ev.PingReceived, now_ns: int) -> None:
        received = ServerInstant(event.received_ns)
        self._send(event.stream, messages.Pong(event.ping.sent_ns, received, ServerInstant(now_ns)))

    def _bye(self, event: ev.ByeReceived, now_ns: int) -> None:
        session = self.sessions.of_stream(event.stream)
        if session is not None and not session.leaving:
            session.leaving = True
            self._planning.want("leave")
            self._end_if_done(session)

    def _input_ended(self, event: ev.InputEnded, now_ns: int) -> None:
        session = self.sessions.of_stream(event.stream)
        if session is None:
            self._out.append(ev.EndStream(event.stream))
        else:
            session.input_ended = True
            self._end_if_done(session)

    def _end_if_done(self, session: Session) -> None:
        """End the stream of a client that sends no more and has all its results; goodbye ends the session, too."""
        if session.outstanding or not (session.leaving or session.input_ended):
            return
        if session.stream is not None:
            self._out.append(ev.EndStream(session.stream))
        if session.leaving:
            self.sessions.remove(session)

    def _refused(self, event: ev.MessageRefused, now_ns: int) -> None:
        self._fail_stream(event.stream, event.code, event.text)

    def _fail_stream(self, stream: int, code: str, text: str) -> None:
        self._send(stream, messages.StreamError(code, text, fatal=True))
        self._out.append(ev.EndStream(stream))

    def _closed(self, event: ev.StreamClosed, now_ns: int) -> None:
        session = self.sessions.lose(event.stream, now_ns)
        if session is None:
            return
        for device in self.devices:
            if device.up and device.frames:
                self._out.append(ev.Tell(device.device_id, ipc.Forget(session.session_id)))
        if session.leaving:
            self.sessions.remove(session)

    def _drain_began(self, event: ev.DrainBegan, now_ns: int) -> None:
        self._drain = messages.Drain(event.grace_s, event.reason)
        for session in self.sessions:
            if session.stream is not None:
                self._send(session.stream, self._drain)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, event: ev.FrameReceived, now_ns: int) -> None:
        frame = event.frame
        session = self.sessions.of_stream(event.stream)
        if session is None:
            return  # its stream has been failed already; what was on its way is not an error of its own
        if not self._admit(session, frame, event.stream):
            return
        received = ServerInstant(event.received_ns)
        self._send(event.stream, messages.Ack(frame.frame_id, received, ServerInstant(now_ns), len(frame.data)))
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
        if refusal is not None:
            self._answer(pending, *refusal, now_ns)
            return
        device = self.devices[pending.device]
        self._take_slot(pending, device)
        self._out.append(ev.SubmitFrame(pending.device, self._submit(pending, device), frame.data))

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
        self._send(stream, messages.StreamError(code, text, frame_id=frame.frame_id))
        return False

    def _refusal(
        self, session: Session, frame: messages.Frame, pending: PendingFrame, now_ns: int
    ) -> tuple[Outcome, str] | None:
        """Why an admitted frame is answered at once, if it is."""
        variants = len(self._input_sizes[session.group])
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
        device = self.devices[pending.device]
        if not device.up:
            other = self._other_device(session.group, device)
            if other is None:
                return Outcome.FAILED, f"device {device.device_id} is restarting and no other serves its group"
            pending.device = other.device_id
            device = other
        if not len(device.pool):
            return Outcome.DROPPED, f"device {device.device_id} holds {self._settings.slots} frames, its limit"
        return None

    def _learn(self, session: Session, frame: messages.Frame, now_ns: int) -> None:
        """What the frame tells of its client's link and content."""
        if frame.rtt_ms > 0.0:
            session.rtt_ms = frame.rtt_ms
        if frame.data and now_ns - session.learnt_ns >= _LEARN_SIZE_EVERY_NS:
            session.learnt_ns = now_ns
            side = max(1, min(frame.width, frame.height))
            session.sizes = observe_size(session.sizes, side, frame.quality or 90, len(frame.data))
        if frame.bandwidth_bps <= 0.0:
            return
        session.bandwidth_bps = frame.bandwidth_bps
        planned_bps = session.snapshot_bandwidth_bps
        if session.plan.placed and abs(frame.bandwidth_bps - planned_bps) > _BANDWIDTH_CHANGE * planned_bps:
            budget = self._budget(session)
            if budget[session.plan.variant] < self._rules.latency_factor * session.plan.infer_ms:
                self._planning.want("bandwidth")

    def _take_slot(self, pending: PendingFrame, device: DeviceState) -> None:
        slot = device.pool.take()
        assert slot is not None, "checked before"
        pending.slot, pending.device = slot, device.device_id
        device.frames[slot] = pending.key
        self._frames.add(pending)

    def _submit(self, pending: PendingFrame, device: DeviceState) -> ipc.Submit:
        pending.run_by_ns = pending.deadline_ns - ms_to_ns(device.respond_ms)
        return ipc.Submit(
            key=pending.key,
            slot=pending.slot,
            length=pending.size_bytes,
            session=pending.session_id,
            frame_id=pending.frame_id,
            group=pending.group,
            width=pending.width,
            height=pending.height,
            received_ns=pending.received_ns,
            deadline_ns=pending.run_by_ns,
        )

    def _batch(self, event: ev.BatchFinished, now_ns: int) -> None:
        batch = event.batch
        device = self.devices[batch.device]
        dropped = 0
        for answer in batch.answers:
            pending = self._frames.settle(answer.key)
            if pending is None:
                continue  # answered by an executor that was declared dead meanwhile
            device.pool.free(pending.slot)
            del device.frames[pending.slot]
            dropped += answer.outcome is Outcome.DROPPED
            if not pending.answered:
                self._settle(pending, answer, batch, device, now_ns)
        if batch.ran or dropped:
            self._out.append(ev.Record(partial(_dispatch_row, batch, dropped, self._names[batch.group])))

    def _settle(
        self, pending: PendingFrame, answer: ipc.Answer, batch: ipc.Batch, device: DeviceState, now_ns: int
    ) -> None:
        times = _stage_times(pending, answer, batch, now_ns)
        if answer.outcome is not Outcome.ON_TIME:
            self._answer(
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
        self._answer(pending, outcome, reason, now_ns, answer.detections, times, batch.variant, answer.queued_ns)

    def _answer(
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
        pending.answered = True
        session = self.sessions.get(pending.session_id)
        if session is None:
            return  # its time to live is over
        session.outstanding -= 1
        session.statistics.count(outcome)
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
            self._send(session.stream, result)
        bandwidths = (session.bandwidth_bps, session.planned_bandwidth_bps)
        name = self._names[pending.group][variant] if times.batch else ""
        self._out.append(ev.Record(partial(_frame_row, pending, result, bandwidths, name, queued_ns)))
        self._end_if_done(session)

    def _next_variant(self, session: Session) -> int:
        planned_bps = session.planned_bandwidth_bps
        if session.bandwidth_bps >= (1.0 - _BANDWIDTH_CHANGE) * planned_bps or not session.plan.placed:
            return session.plan.variant
        return lowered(session, self._budget(session))

    def _budget(self, session: Session) -> tuple[float, ...]:
        return budget_of(session, self._input_sizes[session.group], bandwidth_bps(session), overhead_ms(self.devices))

    # -- devices ------------------------------------------------------------------------------------------------------

    def _device_up(self, event: ev.DeviceUp, now_ns: int) -> None:
        device = self.devices[event.device]
        device.kind, device.up = event.kind, True
        device.running = (event.group, 0)
        wanted = device.assignment
        device.assignment = wanted or Assignment(device.device_id, event.group, 0, 1)
        if wanted is not None:
            self._tell(device)
        self._planning.want("device up")

    def _device_down(self, event: ev.DeviceDown, now_ns: int) -> None:
        device = self.devices[event.device]
        device.up = False
        held, device.frames = device.frames, {}
        for slot, key in held.items():
            pending = self._frames.settle(key)
            device.pool.free(slot)
            if pending is None or pending.answered:
                continue
            if slot in event.running:
                self._answer(pending, Outcome.FAILED, f"device {device.device_id} died with it: {event.reason}", now_ns)
            else:
                self._move(pending, device, now_ns)
        self._planning.want("device down")

    def _move(self, pending: PendingFrame, dead: DeviceState, now_ns: int) -> None:
        """Give a frame that had not started to another device, if it still can make it there."""
        other = self._other_device(pending.group, dead)
        if other is None or not len(other.pool):
            self._answer(pending, Outcome.FAILED, f"device {dead.device_id} died and no other can take it", now_ns)
            return
        profile = self._rules.profiles[other.kind, pending.group]
        needed_ns = ms_to_ns(profile.latency(other.running[1], 1, other.speed))
        if now_ns + needed_ns > pending.deadline_ns:
            reason = f"device {dead.device_id} died and the others cannot finish it in time"
            self._answer(pending, Outcome.FAILED, reason, now_ns)
            return
        dead_slot = pending.slot
        self._take_slot(pending, other)
        self._out.append(ev.MoveFrame(dead.device_id, dead_slot, other.device_id, self._submit(pending, other)))

    def _other_device(self, group: str, device: DeviceState) -> DeviceState | None:
        """The device of the group with the fewest frames, if any but ``device`` is up."""
        others = [one for one in self.devices if one.up and one is not device and one.running[0] == group]
        return min(others, key=lambda one: (len(one.frames), one.device_id), default=None)

    def _switched(self, event: ev.VariantSwitched, now_ns: int) -> None:
        switched = event.switched
        self.devices[switched.device].running = (switched.group, switched.variant)

    def _tell(self, device: DeviceState) -> None:
        assignment = device.assignment
        assert assignment is not None
        serve = ipc.Serve(self._planning.run, assignment.group, assignment.variant, assignment.batch)
        self._out.append(ev.Tell(device.device_id, serve))

    # -- planning -----------------------------------------------------------------------------------------------------

    def _place_provisionally(self, session: Session, now_ns: int) -> None:
        load_fps: dict[int, float] = {}
        for other in self.sessions:
            if other is not session and other.plan.placed and other.wants_place(now_ns):
                load_fps[other.plan.device] = load_fps.get(other.plan.device, 0.0) + other.fps
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps = bandwidth_bps(session)
        budget = self._budget(session)
        assignment = provisional(session, budget, self.devices, load_fps, self._rules)
        own_ms = overhead_ms(self.devices)
        if assignment is None:
            reason = "no device can take it as they run now; a plan is being made"
            session.plan = rejected(self._planning.run, reason, own_ms)
        else:
            device = self.devices[assignment.device_id]
            session.plan = placed(self._planning.run, assignment, device, own_ms, self._rules.profiles)

    def _start_plan(self, now_ns: int) -> None:
        problem = problem_of(self.sessions, self.devices, self._input_sizes, self._rules, self._plan, now_ns)
        run = self._planning.start(problem, now_ns)
        self._out.append(ev.AskPlanner(ipc.PlanRequest(run, problem)))

    def _plan_made(self, event: ev.PlanMade, now_ns: int) -> None:
        problem = self._planning.finish(event.reply.run)
        if problem is None:
            return
        plan = event.reply.plan
        self._apply(problem, plan or keep_previous(problem), event.reply.cpu_ms, plan is None, now_ns)

    def _planner_lost(self, event: ev.PlannerLost, now_ns: int) -> None:
        problem = self._planning.finish(self._planning.run)
        if problem is not None:
            self._apply(problem, keep_previous(problem), 0.0, True, now_ns)
            self._planning.want("planner lost")

    def _apply(self, problem: Problem, plan: Plan, cpu_ms: float, fallback: bool, now_ns: int) -> None:
        before = [device.assignment for device in self.devices]
        self._plan = plan
        switches = 0
        for assignment in plan.assignments:
            device = self.devices[assignment.device_id]
            old, device.assignment = device.assignment, assignment
            if old is None or (old.group, old.variant) != (assignment.group, assignment.variant):
                switches += 1
            elif old.batch == assignment.batch:
                continue
            self._tell(device)
        own_ms = overhead_ms(self.devices)
        starved = devices_for_starved(problem, plan)
        for session in self.sessions:
            self._inform(session, plan, starved.get(session.session_id), own_ms)
        self._out.append(
            ev.Record(
                partial(
                    PlanRow,
                    run=self._planning.run,
                    ts=now_ns,
                    trigger=self._planning.trigger,
                    policy=self._settings.policy,
                    clients=len(problem.clients),
                    rejected=len(plan.rejected),
                    old_models=models_of(before),
                    new_models=models_of(device.assignment for device in self.devices),
                    execution_time=cpu_ms,
                    switches=switches,
                    fallback=fallback,
                    accuracy=request_accuracy(plan, problem),
                )
            )
        )

    def _inform(self, session: Session, plan: Plan, starved_on: int | None, own_ms: float) -> None:
        assignment = plan.device_of(session.session_id)
        reason = plan.rejected.get(session.session_id)
        if starved_on is not None:
            device = self.devices[starved_on]
            assert device.assignment is not None
            update = best_effort(self._planning.run, device.assignment, device, own_ms, self._rules.profiles)
        elif assignment is not None:
            device = self.devices[assignment.device_id]
            update = placed(self._planning.run, assignment, device, own_ms, self._rules.profiles)
        elif reason is not None:
            update = rejected(self._planning.run, reason, own_ms)
        else:
            return  # it joined after the snapshot; the next plan is on its way
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps
        changed = not same_place(session.plan, update)
        session.plan = update
        if changed and session.stream is not None:
            self._send(session.stream, update)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _woken(self, event: ev.Woken, now_ns: int) -> None:
        for pending in self._frames.overdue(now_ns):
            device = self.devices[pending.device]
            reason = f"its deadline passed while it waited for device {device.device_id}"
            self._answer(pending, Outcome.DROPPED, reason, now_ns)
        for session in self.sessions.expired(now_ns):
            self.sessions.remove(session)
            self._planning.want("expired")
        self._check_devices(now_ns)
        if len(self.sessions) and self._planning.pending is None and self._planning.due(now_ns):
            self._planning.want("interval")
        self._check_planner(now_ns)

    def _check_devices(self, now_ns: int) -> None:
        for device in self.devices:
            key = next(iter(device.frames.values()), None)
            oldest = None if key is None else self._frames.get(key)
            if device.up and oldest is not None and now_ns - oldest.received_ns > HANG_NS:
                reason = f"it has held a frame for more than {HANG_NS / NS_PER_S:.0f} s"
                self._out.append(ev.RestartDevice(device.device_id, reason))

    def _check_planner(self, now_ns: int) -> None:
        planning = self._planning
        if planning.pending is None:
            return
        waited_ns = now_ns - planning.started_ns
        if waited_ns >= PLANNER_PATIENCE_NS:
            self._out.append(ev.RestartPlanner())
            planning.started_ns = now_ns
        elif waited_ns >= planning.budget_ns and not planning.fallen_back:
            planning.fallen_back = True
            self._apply(planning.pending, keep_previous(planning.pending), 0.0, True, now_ns)

    def _send(self, stream: int, item: ev.Item) -> None:
        self._out.append(ev.Send(stream, item))


_MAX_UPLINK_MS = 60_000.0
"""What a wrong clock offset may make of an uplink time."""
_RESULT_BYTES = 60
"""Size of a result on the wire without its boxes."""


def _stage_times(pending: PendingFrame, answer: ipc.Answer, batch: ipc.Batch, now_ns: int) -> messages.StageTimes:
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


def _frame_row(
    pending: PendingFrame,
    result: messages.Result,
    bandwidths_bps: tuple[float, float],
    variant: str,
    queued_ns: int | None,
) -> ServerFrameRow:
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


def _dispatch_row(batch: ipc.Batch, dropped: int, names: Sequence[str]) -> DispatchRow:
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
