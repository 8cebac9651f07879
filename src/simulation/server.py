"""The simulated server: sessions, the planning period, placement, deadlines. The decisions are the library's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from moonjelly import network
from moonjelly.adaptation import PlanView
from moonjelly.clock import Clock
from moonjelly.latency_factor import SAFE, UNKNOWN, observe
from moonjelly.network import INITIAL_BANDWIDTH_BPS, FrameSizes, HarmonicMean, answer_by_ns
from moonjelly.placement import Place, Running, asked_variant, is_broken, link_changed, newcomer, places
from moonjelly.planning import Assignment, Client, Device, Plan, Policy, Problem, check
from moonjelly.planning.cadence import asked_run_ns, periodic_run_ns
from moonjelly.planning.changes import RecentChanges
from moonjelly.planning.overhead import overhead_ms, smoothed_ms
from moonjelly.profiles import Profile
from moonjelly.telemetry import PlanRow
from moonjelly.types import DEFAULT_GROUP
from moonjelly.units import NS_PER_MS, ClientInstant, ServerInstant, ms_to_ns
from simulation.events import Agenda, Frame, PlanDue, PlanMade
from simulation.systems import System
from simulation.workload import ClientSpec, Workload


@dataclass(slots=True)
class Session:
    """What the server knows of one client.

    Attributes:
        bandwidth_bps: as planning uses it.
        snapshot_bps: what the latest planning problem says.
        planned_bps: what its place was computed with.
        preparation_ms: what it takes from capture to sending; stays 0 where the system does not count with it.
        learnt_ns: when its frames' size was last looked at.
        sizes: learnt encoded sizes; stays empty where the system plans with the table.
        harmonic: Jellyfish's smoothing of the reports.
        place: what it has of the plan.
    """

    spec: ClientSpec
    place: Place
    bandwidth_bps: float = INITIAL_BANDWIDTH_BPS
    snapshot_bps: float = INITIAL_BANDWIDTH_BPS
    planned_bps: float = INITIAL_BANDWIDTH_BPS
    rtt_ms: float = 0.0
    preparation_ms: float = 0.0
    learnt_ns: int = -network.LEARN_SIZE_EVERY_NS
    sizes: FrameSizes = field(default_factory=FrameSizes)
    harmonic: HarmonicMean = field(default_factory=HarmonicMean)


class SimulatedServer:
    """Keeps sessions and plans.

    Args:
        workload: what is simulated.
        system: how.
        policy: the system's planning policy.
        cpu_clock: measures planning for the log; nothing depends on what it says.
        agenda: where planning runs are put.
        record: told of every planning run.
    """

    def __init__(
        self,
        workload: Workload,
        system: System,
        policy: Policy,
        cpu_clock: Clock,
        agenda: Agenda,
        record: Callable[[PlanRow], None],
    ) -> None:
        self._workload = workload
        self._system = system
        self._policy = policy
        self._cpu_clock = cpu_clock
        self._agenda = agenda
        self._record = record
        self._devices = tuple(Device(index, kind, speed) for index, (kind, speed) in enumerate(workload.devices))
        self._idle = tuple(Assignment(device.device_id, DEFAULT_GROUP, 0, 1) for device in self._devices)
        self._profiles = {(kind, DEFAULT_GROUP): profile for kind, profile in workload.profiles.items()}
        self._input_sizes = tuple(variant.input_size for variant in self.profile.variants)
        self._measured_ms = 0.0
        self._changes = RecentChanges()
        self._planned_at_ns: int | None = None
        self._due_ns: int | None = None
        self._due_reason = ""
        self._due_number = 0
        self.sessions: dict[int, Session] = {}
        self.runs = 0
        self._promises = UNKNOWN
        self.latency_factor = system.fixed_factor or SAFE
        self.plan: Plan | None = None

    @property
    def profile(self) -> Profile:
        """Of the first device: names the variants."""
        return self._workload.profiles[self._devices[0].kind]

    @property
    def overhead_ms(self) -> float:
        """The server's own share beside waiting and inference, as planning counts it."""
        return overhead_ms((self._measured_ms,))

    def join(self, spec: ClientSpec, now_ns: int) -> PlanView:
        """Open a session; what its client is told of its place until the plan knows it."""
        session = Session(spec, Place(), rtt_ms=self._workload.timing.rtt_ms)
        session.place = newcomer(
            DEFAULT_GROUP,
            spec.fps,
            self._planned_budgets(session),
            self._running(),
            self._profiles,
            self.latency_factor,
            self._system.rho,
        )
        self.sessions[spec.client_id] = session
        self.trigger("join", now_ns)
        return self.view(session)

    def leave(self, client_id: int, now_ns: int) -> None:
        """Close a session."""
        del self.sessions[client_id]
        self.trigger("leave", now_ns)

    def receive(self, frame: Frame, now_ns: int) -> Session | None:
        """Learn from a frame and give it its deadline; ``None`` when its client has left."""
        session = self.sessions.get(frame.client_id)
        if session is None:
            return None
        frame.received = ServerInstant(now_ns)
        self._learn(session, frame)
        captured_ns = network.captured_at_server(frame.captured, frame.sent, frame.received, frame.offset)
        frame.uplink_ms = (now_ns - captured_ns) / NS_PER_MS
        frame.estimated_bps = session.bandwidth_bps
        answer_ns = answer_by_ns(captured_ns, session.spec.slo_ms, session.rtt_ms)
        frame.deadline_ns = answer_ns - ms_to_ns(self._workload.timing.respond_ms)
        looked_at = self._system.plans_on_bandwidth and link_changed(session.bandwidth_bps, session.snapshot_bps)
        if looked_at and is_broken(session.place, self._planned_budgets(session), self.latency_factor):
            self.trigger("bandwidth", now_ns)
        return session

    def served(self, frame: Frame) -> None:
        """Take in the server's own times on a frame that ran, and choose what to ask of its client next."""
        own_ms = self._workload.timing.ingest_ms + self._workload.timing.respond_ms
        if frame.queued_ns is not None:
            own_ms += (frame.queued_ns - frame.received) / NS_PER_MS - self._workload.timing.ingest_ms
        self._measured_ms = smoothed_ms(self._measured_ms, own_ms)
        if frame.kept is not None and self._system.fixed_factor is None:
            self._promises = observe(self._promises, frame.kept)
        session = self.sessions.get(frame.client_id)
        frame.next_variant = 0 if session is None else self._asked(session)

    def speed(self, device_id: int) -> float:
        """Factor on a device's profile that is counted with."""
        return self._devices[device_id].speed

    def measured(self, device_id: int, speed: float, now_ns: int) -> None:
        """A device does ``speed`` of what it was configured for; slower asks for a plan, faster waits for the next."""
        device = self._devices[device_id]
        changed = replace(device, speed=self._workload.devices[device_id][1] * speed)
        self._devices = (*self._devices[:device_id], changed, *self._devices[device_id + 1 :])
        if changed.speed < device.speed:
            self.trigger("speed", now_ns)

    def trigger(self, reason: str, now_ns: int) -> None:
        """Plan as soon as the last run is long enough ago."""
        self._plan_at(asked_run_ns(self._planned_at_ns, now_ns), reason)

    def plan_due(self, number: int, now_ns: int) -> None:
        """Run the policy on a snapshot; the plan takes effect a little later."""
        if number != self._due_number:
            return
        reason, self._due_ns, self._planned_at_ns = self._due_reason, None, now_ns
        if self.sessions:
            self._plan_at(periodic_run_ns(now_ns), "interval")
        self.latency_factor = self._system.fixed_factor or self._promises.latency_factor
        problem = self._snapshot(now_ns)
        started_ns = self._cpu_clock.now_ns()
        plan = self._policy.plan(problem, seed=self._workload.seed + self.runs)
        spent_ms = (self._cpu_clock.now_ns() - started_ns) / NS_PER_MS
        report = check(problem, plan)
        report.require_valid()
        self._record(
            PlanRow(
                run=self.runs,
                ts=now_ns,
                trigger=reason,
                policy=self._system.policy,
                clients=len(problem.clients),
                rejected=len(plan.rejected),
                old_models=self._models(problem.previous),
                new_models=self._models(plan),
                execution_time=spent_ms,
                switches=report.changes,
                fallback=False,
                accuracy=report.accuracy,
                latency_factor=problem.latency_factor,
            )
        )
        self.runs += 1
        self._changes = self._changes.after(report.changes, problem.devices, now_ns)
        self._agenda.add(now_ns + ms_to_ns(self._workload.timing.planning_ms), PlanMade(problem, plan))

    def _plan_at(self, at_ns: int, reason: str) -> None:
        if self._due_ns is None or at_ns < self._due_ns:
            self._due_ns, self._due_reason = at_ns, reason
            self._due_number += 1
            self._agenda.add(at_ns, PlanDue(self._due_number))

    def apply(self, problem: Problem, plan: Plan) -> dict[int, PlanView]:
        """Put a plan into effect; returns what each client is told."""
        self.plan = plan
        views: dict[int, PlanView] = {}
        for client_id, place in places(problem, plan):
            session = self.sessions.get(client_id)
            if session is not None:
                session.place, session.planned_bps = place, session.snapshot_bps
                views[client_id] = self.view(session)
        return views

    def view(self, session: Session) -> PlanView:
        """What a client may know of the plan."""
        place, factor = session.place, self.latency_factor
        return PlanView(place.device_id is not None, self._asked(session), place.infer_ms, self.overhead_ms, factor)

    def _asked(self, session: Session) -> int:
        budgets = partial(self._budgets, session)
        factor = self.latency_factor
        return asked_variant(session.place, session.bandwidth_bps, session.planned_bps, budgets, factor)

    def _running(self) -> list[Running]:
        load_fps = dict.fromkeys(range(len(self._devices)), 0.0)
        for session in self.sessions.values():
            if session.place.device_id is not None:
                load_fps[session.place.device_id] += session.spec.fps
        assignments = self.plan.assignments if self.plan is not None else self._idle
        return [
            Running(device, assignment, load_fps[device.device_id])
            for device, assignment in zip(self._devices, assignments, strict=True)
        ]

    def _learn(self, session: Session, frame: Frame) -> None:
        session.rtt_ms = frame.rtt_ms or session.rtt_ms
        if self._system.network == "jellyfish":
            session.harmonic = session.harmonic.step(ClientInstant(frame.sent), frame.bandwidth_bps)
            session.bandwidth_bps = session.harmonic.bandwidth_bps
            return
        session.bandwidth_bps = frame.bandwidth_bps or session.bandwidth_bps
        session.preparation_ms = network.observe_preparation(session.preparation_ms, frame.captured, frame.sent)
        if frame.received - session.learnt_ns >= network.LEARN_SIZE_EVERY_NS:
            session.learnt_ns = frame.received
            size = self._input_sizes[frame.variant]
            session.sizes = network.observe_size(session.sizes, size, frame.quality, frame.size_bytes)

    def _budgets(self, session: Session) -> tuple[float, ...]:
        return network.budgets(
            session.spec.slo_ms,
            session.spec.fps,
            session.sizes.of_variants(self._input_sizes),
            session.bandwidth_bps,
            session.rtt_ms,
            self.overhead_ms,
            preparation_ms=session.preparation_ms,
        )

    def _planned_budgets(self, session: Session) -> tuple[float, ...]:
        """What planning counts with; the published code plans on frames of each variant's own size."""
        budget_ms = self._budgets(session)
        return (
            budget_ms if self._system.network == "jellyfish" else network.planned_budgets(budget_ms, self._input_sizes)
        )

    def _snapshot(self, now_ns: int) -> Problem:
        clients = []
        for client_id, session in self.sessions.items():
            session.snapshot_bps = session.bandwidth_bps
            clients.append(Client(client_id, session.spec.fps, session.spec.slo_ms, self._planned_budgets(session)))
        return Problem(
            clients=tuple(clients),
            devices=self._devices,
            profiles=self._profiles,
            previous=self.plan,
            latency_factor=self.latency_factor,
            rho=self._system.rho,
            changes_per_min=self._changes.per_min(now_ns),
        )

    def _models(self, plan: Plan | None) -> str:
        names = self.profile.variants
        return " ".join(names[one.variant].name for one in plan.assignments) if plan else ""
