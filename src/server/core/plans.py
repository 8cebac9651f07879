"""The life of a plan: a newcomer's first place, the snapshot, the planner's answer or its fallback, who is told."""

from __future__ import annotations

from msgspec import structs

from moonjelly.placement import Place, kept, newcomer, places
from moonjelly.planning import keep_previous
from moonjelly.planning.changes import RecentChanges
from moonjelly.planning.problem import Plan, Problem
from moonjelly.telemetry import PlanRow
from server import ipc
from server.core import events as ev
from server.core.devices import DeviceState
from server.core.placement import (
    bandwidth_bps,
    models_of,
    own_ms,
    problem_of,
    request_accuracy,
    running,
    same_place,
    told,
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
        self._changes = RecentChanges()

    def place(self, session: Session) -> None:
        """A place on a device as it runs now, until there is a plan that knows the client.

        One that comes back has its old place again if there still is room, if need be one that does not suit what the
        device has been told to run meanwhile. Without a promise it needs no room.
        """
        rules, before = self._rules, session.place
        if before.device_id is not None and not before.promised:
            return
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps = bandwidth_bps(session)
        devices = running(self._devices, (other for other in self._sessions if other is not session))
        session.place = newcomer(
            session.group,
            session.fps,
            self._state.planned_budget(session),
            devices,
            rules.profiles,
            self._state.latency_factor,
            rules.rho,
            before.device_id,
        )
        if session.place.device_id is None and before.device_id is not None:
            again = kept(before, session.group, session.fps, devices, rules.profiles, rules.rho)
            session.place = again or session.place
        session.plan = told(session.place, self._planning.run, own_ms(self._devices), self._state.latency_factor)

    def start(self, now_ns: int) -> None:
        """Ask the planner about things as they are."""
        state = self._state
        factor = state.latency_factor = self._rules.latency_factor or state.promises.latency_factor
        changes_per_min = self._changes.per_min(now_ns)
        problem = problem_of(
            self._sessions, self._devices, state.input_sizes, self._rules, self._plan, changes_per_min, factor
        )
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
        self._plan = Plan(plan.assignments)  # the next problem needs no reasons, and there may be thousands
        switches = self._switch(plan)
        self._changes = self._changes.after(switches, problem.devices, now_ns)
        server_ms = own_ms(self._devices)
        for client_id, place in places(problem, plan):
            session = self._sessions.get(client_id)
            if session is not None:
                self._inform(session, place, server_ms)
        row = PlanRow(
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
            latency_factor=problem.latency_factor,
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

    def _inform(self, session: Session, place: Place, server_ms: float) -> None:
        update = told(place, self._planning.run, server_ms, self._state.latency_factor)
        session.planned_bandwidth_bps = session.snapshot_bandwidth_bps
        session.place = place
        if same_place(session.plan, update):
            session.plan = structs.replace(update, overhead_ms=session.plan.overhead_ms)
            return
        session.plan = update
        if session.stream is not None:
            self._out.append(ev.Send(session.stream, update))
