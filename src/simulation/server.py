"""The simulated server: sessions, the planning period, placement, deadlines. The decisions are the library's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moonjelly import network
from moonjelly.adaptation import LATENCY_FACTOR, PlanView, next_variant
from moonjelly.clock import Clock
from moonjelly.network import FrameSizes, HarmonicMean
from moonjelly.planning import Client, Device, Plan, Policy, Problem, check
from moonjelly.planning.best_effort import devices_for_starved
from moonjelly.profiles import Profile
from moonjelly.telemetry import PlanRow
from moonjelly.types import DEFAULT_GROUP
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant, ServerInstant, ms_to_ns
from simulation.events import Agenda, Frame, PlanDue, PlanMade
from simulation.systems import System
from simulation.workload import ClientSpec, Workload

PERIOD_NS = NS_PER_S // 2
MIN_INTERVAL_NS = NS_PER_S // 10
"""Planning is not triggered more often than this."""
FIXED_OVERHEAD_MS = 2.0
"""Added to the measured times of the server when planning (Jellyfish, section III)."""
INITIAL_BPS = 8e6
"""Assumed of a client that has not reported any bandwidth."""
MARGIN_MS = 1.0
"""Kept free before a deadline for what delays an answer on its way."""
_SMOOTHING = 0.5


@dataclass(slots=True)
class Session:
    """What the server knows of one client.

    Attributes:
        bandwidth_bps: as planning uses it.
        sizes: learnt encoded sizes; stays empty where the system plans with the table.
        harmonic: Jellyfish's smoothing of the reports.
        device: that takes its frames; ``None``: rejected.
        promised: the plan has a place for it (else best effort).
    """

    spec: ClientSpec
    bandwidth_bps: float = INITIAL_BPS
    rtt_ms: float = 0.0
    sizes: FrameSizes = field(default_factory=FrameSizes)
    harmonic: HarmonicMean = field(default_factory=HarmonicMean)
    device: int | None = None
    promised: bool = False
    rejection: str = ""


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
        self._profiles = {(kind, DEFAULT_GROUP): profile for kind, profile in workload.profiles.items()}
        self._input_sizes = tuple(variant.input_size for variant in self.profile.variants)
        self._overhead_ms = 0.0
        self._planned_at_ns = -PERIOD_NS
        self._due_ns: int | None = None
        self._due_reason = ""
        self._due_number = 0
        self.sessions: dict[int, Session] = {}
        self.runs = 0
        self.plan: Plan | None = None

    @property
    def profile(self) -> Profile:
        """Of the first device: names the variants."""
        return self._workload.profiles[self._devices[0].kind]

    @property
    def overhead_ms(self) -> float:
        """The server's own share beside waiting and inference, as planning counts it."""
        return self._overhead_ms + FIXED_OVERHEAD_MS

    def join(self, spec: ClientSpec, now_ns: int) -> None:
        """Open a session. Until the plan knows it, the first device takes its frames if it can."""
        self.sessions[spec.client_id] = Session(spec, rtt_ms=self._workload.timing.rtt_ms, device=0)
        self.trigger("join", now_ns)

    def leave(self, client_id: int, now_ns: int) -> None:
        """Close a session."""
        del self.sessions[client_id]
        self.trigger("leave", now_ns)

    def receive(self, frame: Frame, now_ns: int) -> Session | None:
        """Learn from a frame and give it its deadline; ``None`` when its client has left."""
        session = self.sessions.get(frame.client_id)
        if session is None:
            return None
        self._learn(session, frame)
        captured_ns = network.captured_at_server(frame.captured, frame.sent, ServerInstant(now_ns), frame.offset)
        timing = self._workload.timing
        frame.received = ServerInstant(now_ns)
        frame.uplink_ms = (now_ns - captured_ns) / NS_PER_MS
        frame.estimated_bps = session.bandwidth_bps
        margin_ms = session.rtt_ms / 2 + timing.respond_ms + MARGIN_MS
        frame.deadline_ns = captured_ns + ms_to_ns(session.spec.slo_ms - min(margin_ms, session.spec.slo_ms))
        if self._system.plans_on_bandwidth and session.promised and not self._fits(session):
            self.trigger("bandwidth", now_ns)
        return session

    def served(self, frame: Frame) -> None:
        """Take in the server's own times on a frame that ran, and choose what to ask of its client next."""
        own_ms = self._workload.timing.ingest_ms + self._workload.timing.respond_ms
        if frame.queued_ns is not None:
            own_ms += (frame.queued_ns - frame.received) / NS_PER_MS - self._workload.timing.ingest_ms
        self._overhead_ms += _SMOOTHING * (own_ms - self._overhead_ms)
        session = self.sessions.get(frame.client_id)
        frame.next_variant = 0 if session is None else self._asked(session)

    def trigger(self, reason: str, now_ns: int) -> None:
        """Plan as soon as the last run is :data:`MIN_INTERVAL_NS` ago."""
        self._plan_at(max(now_ns, self._planned_at_ns + MIN_INTERVAL_NS), reason)

    def plan_due(self, number: int, now_ns: int) -> None:
        """Run the policy on a snapshot; the plan takes effect a little later."""
        if number != self._due_number:
            return
        reason, self._due_ns, self._planned_at_ns = self._due_reason, None, now_ns
        if self.sessions:
            self._plan_at(now_ns + PERIOD_NS, "period")
        problem = self._snapshot()
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
            )
        )
        self.runs += 1
        self._agenda.add(now_ns + ms_to_ns(self._workload.timing.planning_ms), PlanMade(problem, plan))

    def _plan_at(self, at_ns: int, reason: str) -> None:
        if self._due_ns is None or at_ns < self._due_ns:
            self._due_ns, self._due_reason = at_ns, reason
            self._due_number += 1
            self._agenda.add(at_ns, PlanDue(self._due_number))

    def apply(self, problem: Problem, plan: Plan) -> dict[int, PlanView]:
        """Put a plan into effect; returns what each client is told."""
        self.plan = plan
        starved = devices_for_starved(problem, plan)
        views: dict[int, PlanView] = {}
        for session in self.sessions.values():
            client_id = session.spec.client_id
            assignment = plan.device_of(client_id)
            if assignment is not None:
                session.device, session.promised = assignment.device_id, True
            elif client_id in plan.rejected and client_id not in starved:
                session.device, session.promised, session.rejection = None, False, plan.rejected[client_id]
            elif client_id in starved:
                session.device, session.promised = starved[client_id], False
            views[client_id] = self.view(session)
        return views

    def view(self, session: Session) -> PlanView:
        """What a client may know of the plan."""
        if session.device is None or self.plan is None:
            return PlanView(session.device is not None, 0, self.profile.latency(0, 1), self.overhead_ms)
        return PlanView(True, self._asked(session), self._infer_ms(session.device), self.overhead_ms)

    def _asked(self, session: Session) -> int:
        if session.device is None or self.plan is None or not session.promised:
            return 0
        planned = self.plan.assignments[session.device].variant
        if self._fits(session):
            return planned
        return next_variant(planned, self._budgets(session), self._infer_ms(session.device))

    def _infer_ms(self, device_id: int) -> float:
        if self.plan is None:
            return self.profile.latency(0, 1)
        device, assignment = self._devices[device_id], self.plan.assignments[device_id]
        profile = self._profiles[device.kind, assignment.group]
        return profile.latency(assignment.variant, assignment.batch, device.speed)

    def _fits(self, session: Session) -> bool:
        """Whether the planned variant still has the time that the plan promised."""
        if session.device is None or self.plan is None:
            return True
        planned = self.plan.assignments[session.device].variant
        budget_ms = self._budgets(session, self._input_sizes[planned : planned + 1])[0]
        return budget_ms >= LATENCY_FACTOR * self._infer_ms(session.device)

    def _learn(self, session: Session, frame: Frame) -> None:
        session.rtt_ms = frame.rtt_ms or session.rtt_ms
        if self._system.network == "jellyfish":
            session.harmonic = session.harmonic.step(ClientInstant(frame.sent), frame.bandwidth_bps)
            session.bandwidth_bps = session.harmonic.bandwidth_bps
            return
        session.bandwidth_bps = frame.bandwidth_bps or session.bandwidth_bps
        session.sizes = network.observe_size(
            session.sizes, self._input_sizes[frame.variant], frame.quality, frame.size_bytes
        )

    def _budgets(self, session: Session, input_sizes: tuple[int, ...] | None = None) -> tuple[float, ...]:
        return network.budgets(
            session.spec.slo_ms,
            session.spec.fps,
            session.sizes.of_variants(self._input_sizes if input_sizes is None else input_sizes),
            session.bandwidth_bps,
            session.rtt_ms,
            self.overhead_ms,
        )

    def _snapshot(self) -> Problem:
        return Problem(
            clients=tuple(
                Client(client_id, session.spec.fps, session.spec.slo_ms, self._budgets(session))
                for client_id, session in self.sessions.items()
            ),
            devices=self._devices,
            profiles=self._profiles,
            previous=self.plan,
            rho=self._system.rho,
        )

    def _models(self, plan: Plan | None) -> str:
        names = self.profile.variants
        return " ".join(names[one.variant].name for one in plan.assignments) if plan else ""
