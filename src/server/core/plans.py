"""The life of a plan: a newcomer's first place, the snapshot, the planner's answer or its fallback, who is told."""

from __future__ import annotations

from functools import partial

from moonjelly.planning import keep_previous
from moonjelly.planning.best_effort import devices_for_starved
from moonjelly.planning.problem import Plan, Problem
from moonjelly.telemetry import PlanRow
from server import ipc
from server.core import events as ev
from server.core.devices import DeviceState
from server.core.placement import (
    bandwidth_bps,
    best_effort,
    models_of,
    overhead_ms,
    placed,
    problem_of,
    provisional,
    rejected,
    request_accuracy,
    same_place,
)
from server.core.planner import PLANNER_PATIENCE_NS
from server.core.sessions import Session
from server.core.state import State


class Plans:
    """The plan in force, and the next one."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._rules = state.settings.rules
        self._sessions = state.sessions
        self._devices = state.devices
        self._planning = state.planning
        self._out = state.out
        self._plan: Plan | None = None

    def place_newcomer(self, session: Session, now_ns: int) -> None:
        """A place on a device as it runs now, until there is a plan that knows the client."""
        load_fps: dict[int, float] = {}
        for other in self._sessions:
            if other is not session and other.plan.placed and other.wants_place(now_ns):
                load_fps[other.plan.device] = load_fps.get(other.plan.device, 0.0) + other.fps
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps = bandwidth_bps(session)
        assignment = provisional(session, self._state.budget(session), self._devices, load_fps, self._rules)
        own_ms = overhead_ms(self._devices)
        if assignment is None:
            reason = "no device can take it as they run now; a plan is being made"
            session.plan = rejected(self._planning.run, reason, own_ms)
        else:
            device = self._devices[assignment.device_id]
            session.plan = placed(self._planning.run, assignment, device, own_ms, self._rules.profiles)

    def start(self, now_ns: int) -> None:
        """Ask the planner about things as they are."""
        state = self._state
        problem = problem_of(self._sessions, self._devices, state.input_sizes, self._rules, self._plan, now_ns)
        run = self._planning.start(problem, now_ns)
        self._out.append(ev.AskPlanner(ipc.PlanRequest(run, problem)))

    def made(self, event: ev.PlanMade, now_ns: int) -> None:
        """Put the planner's plan into force, also one that comes after its fallback."""
        problem = self._planning.finish(event.reply.run)
        if problem is None:
            return
        plan = event.reply.plan
        self._apply(problem, plan or keep_previous(problem), event.reply.cpu_ms, plan is None, now_ns)

    def planner_lost(self, event: ev.PlannerLost, now_ns: int) -> None:
        """Fall back, and plan again with the next planner."""
        problem = self._planning.finish(self._planning.run)
        if problem is not None:
            self._apply(problem, keep_previous(problem), 0.0, True, now_ns)
            self._planning.want("planner lost")

    def tell(self, device: DeviceState) -> None:
        """What the plan has the device run."""
        assignment = device.assignment
        assert assignment is not None
        serve = ipc.Serve(self._planning.run, assignment.group, assignment.variant, assignment.batch)
        self._out.append(ev.Tell(device.device_id, serve))

    def watch(self, now_ns: int) -> None:
        """Plan when the interval is over; fall back when the planner is late; replace one that hangs."""
        planning = self._planning
        if planning.pending is None:
            if len(self._sessions) and planning.due(now_ns):
                planning.want("interval")
            return
        waited_ns = now_ns - planning.started_ns
        if waited_ns >= PLANNER_PATIENCE_NS:
            self._out.append(ev.RestartPlanner())
            planning.started_ns = now_ns
        elif waited_ns >= planning.budget_ns and not planning.fallen_back:
            planning.fallen_back = True
            self._apply(planning.pending, keep_previous(planning.pending), 0.0, True, now_ns)

    def _apply(self, problem: Problem, plan: Plan, cpu_ms: float, fallback: bool, now_ns: int) -> None:
        old_models = models_of(device.assignment for device in self._devices)
        self._plan = plan
        switches = self._switch(plan)
        own_ms = overhead_ms(self._devices)
        starved = devices_for_starved(problem, plan)
        for session in self._sessions:
            self._inform(session, plan, starved.get(session.session_id), own_ms)
        row = partial(
            PlanRow,
            run=self._planning.run,
            ts=now_ns,
            trigger=self._planning.trigger,
            policy=self._state.settings.policy,
            clients=len(problem.clients),
            rejected=len(plan.rejected),
            old_models=old_models,
            new_models=models_of(device.assignment for device in self._devices),
            execution_time=cpu_ms,
            switches=switches,
            fallback=fallback,
            accuracy=request_accuracy(plan, problem),
        )
        self._out.append(ev.Record(row))

    def _switch(self, plan: Plan) -> int:
        """Tell the devices what is new to them; how many change their variant."""
        switches = 0
        for assignment in plan.assignments:
            device = self._devices[assignment.device_id]
            old, device.assignment = device.assignment, assignment
            if old is None or (old.group, old.variant) != (assignment.group, assignment.variant):
                switches += 1
            elif old.batch == assignment.batch:
                continue
            self.tell(device)
        return switches

    def _inform(self, session: Session, plan: Plan, starved_on: int | None, own_ms: float) -> None:
        assignment = plan.device_of(session.session_id)
        reason = plan.rejected.get(session.session_id)
        if starved_on is not None:
            device = self._devices[starved_on]
            assert device.assignment is not None
            update = best_effort(self._planning.run, device.assignment, device, own_ms, self._rules.profiles)
        elif assignment is not None:
            device = self._devices[assignment.device_id]
            update = placed(self._planning.run, assignment, device, own_ms, self._rules.profiles)
        elif reason is not None:
            update = rejected(self._planning.run, reason, own_ms)
        else:
            return  # it joined after the snapshot; the next plan is on its way
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps
        changed = not same_place(session.plan, update)
        session.plan = update
        if changed and session.stream is not None:
            self._out.append(ev.Send(session.stream, update))
