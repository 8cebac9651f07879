"""From the state of the server to a planning problem, and from a plan to what devices and clients are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from moonjelly.adaptation import next_variant
from moonjelly.network import budgets
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from moonjelly.profiles import Profile
from moonjelly.rpc.messages import PlanUpdate
from server.core.devices import FIXED_OVERHEAD_MS, DeviceState
from server.core.sessions import Session

INITIAL_BANDWIDTH_BPS = 8_000_000.0
"""Assumed of a client that has not reported any: a mediocre LTE uplink."""
MAX_OVERHEAD_MS = 20.0
BANDWIDTH_CHANGE = 0.15
"""A report that differs by more than this share from what was planned with is looked at."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Constants of planning.

    Attributes:
        profiles: (device kind, group) to profile.
        latency_factor: one batch waiting and one running.
        rho: share of a device's throughput that may be planned.
    """

    profiles: Mapping[tuple[str, str], Profile]
    latency_factor: float
    rho: float


def bandwidth_bps(session: Session) -> float:
    """What planning assumes of a client's uplink: its last report, also while it is silent."""
    return session.bandwidth_bps if session.bandwidth_bps > 0.0 else INITIAL_BANDWIDTH_BPS


def overhead_ms(devices: Iterable[DeviceState]) -> float:
    """The server's own share of a deadline beside waiting and inference."""
    measured = max((device.overhead_ms for device in devices if device.up), default=0.0)
    return min(measured, MAX_OVERHEAD_MS) + FIXED_OVERHEAD_MS


def budget_of(session: Session, input_sizes: tuple[int, ...], rate_bps: float, own_ms: float) -> tuple[float, ...]:
    """Per variant, what is left of the client's deadline for waiting and inference."""
    frame_bytes = session.sizes.of_variants(input_sizes)
    return budgets(session.slo_ms, session.fps, frame_bytes, rate_bps, session.rtt_ms, own_ms)


def problem_of(
    sessions: Iterable[Session],
    devices: Iterable[DeviceState],
    input_sizes: Mapping[str, tuple[int, ...]],
    rules: Rules,
    previous: Plan | None,
    now_ns: int,
) -> Problem:
    """The snapshot that a policy sees."""
    devices = [device for device in devices if device.up]
    own_ms = overhead_ms(devices)
    clients = []
    for session in sessions:
        if session.wants_place(now_ns):
            rate_bps = session.snapshot_bandwidth_bps = bandwidth_bps(session)
            budget = budget_of(session, input_sizes[session.group], rate_bps, own_ms)
            clients.append(Client(session.session_id, session.fps, session.slo_ms, budget, session.group))
    return Problem(
        clients=tuple(clients),
        devices=tuple(Device(device.device_id, device.kind, device.speed) for device in devices),
        profiles=rules.profiles,
        previous=previous,
        latency_factor=rules.latency_factor,
        rho=rules.rho,
    )


def provisional(
    session: Session,
    budget: tuple[float, ...],
    devices: Iterable[DeviceState],
    load_fps: Mapping[int, float],
    rules: Rules,
) -> Assignment | None:
    """A place for a newcomer on a device as it runs now, the least loaded first, until the planner has looked."""
    for device in sorted(devices, key=lambda one: (load_fps.get(one.device_id, 0.0), one.device_id)):
        assignment = device.assignment
        if not device.up or assignment is None or assignment.group != session.group:
            continue
        profile = rules.profiles[device.kind, session.group]
        waiting_ms = rules.latency_factor * profile.latency(assignment.variant, assignment.batch, device.speed)
        capacity_fps = rules.rho * profile.throughput(assignment.variant, assignment.batch, device.speed)
        offered_fps = load_fps.get(device.device_id, 0.0) + session.fps
        if waiting_ms <= budget[assignment.variant] and offered_fps <= capacity_fps:
            return assignment
    return None


def placed(
    version: int,
    assignment: Assignment,
    device: DeviceState,
    own_ms: float,
    profiles: Mapping[tuple[str, str], Profile],
) -> PlanUpdate:
    """What a client with a place is told."""
    profile = profiles[device.kind, assignment.group]
    return PlanUpdate(
        version=version,
        placed=True,
        variant=assignment.variant,
        batch=assignment.batch,
        device=assignment.device_id,
        infer_ms=profile.latency(assignment.variant, assignment.batch, device.speed),
        overhead_ms=own_ms,
    )


def best_effort(
    version: int,
    assignment: Assignment,
    device: DeviceState,
    own_ms: float,
    profiles: Mapping[tuple[str, str], Profile],
) -> PlanUpdate:
    """What a client whose link is too poor for any plan is told: it is served without a promise.

    It goes on sending what its link carries, so that its bandwidth goes on being measured.
    """
    update = placed(version, assignment, device, own_ms, profiles)
    reason = "served without a promise: its link is too poor for its deadline on any device"
    return replace(update, variant=0, reason=reason)


def rejected(version: int, reason: str, own_ms: float) -> PlanUpdate:
    """What a client without a place is told."""
    return PlanUpdate(version=version, placed=False, variant=0, reason=reason, overhead_ms=own_ms)


def lowered(session: Session, budget: tuple[float, ...]) -> int:
    """The variant to size the next frame for: the planned one, or less where the link has become worse."""
    return next_variant(session.plan.variant, budget, session.plan.infer_ms)


def same_place(before: PlanUpdate, after: PlanUpdate) -> bool:
    """Whether the client need not be told."""
    return (before.placed, before.variant, before.batch, before.device, before.reason) == (
        after.placed,
        after.variant,
        after.batch,
        after.device,
        after.reason,
    )


def request_accuracy(plan: Plan, problem: Problem) -> float:
    """Accuracy of the plan, weighted by requests; a rejected client counts as 0 (Jellyfish, section III)."""
    kinds = {device.device_id: device.kind for device in problem.devices}
    fps = {client.client_id: client.fps for client in problem.clients}
    total = sum(fps.values())
    gained = sum(
        fps.get(client, 0.0) * problem.profiles[kinds[a.device_id], a.group].accuracy[a.variant]
        for a in plan.assignments
        for client in a.clients
    )
    return gained / total if total > 0.0 else 0.0


def models_of(assignments: Iterable[Assignment | None]) -> str:
    """``group:variant`` per device, for the log."""
    return " ".join("-" if a is None else f"{a.group}:{a.variant}x{a.batch}" for a in assignments)
