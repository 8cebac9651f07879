"""From the state of the server to a planning problem, and from a plan to what devices and clients are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec import structs

from moonjelly.network import INITIAL_BANDWIDTH_BPS, budgets, planned_budgets
from moonjelly.placement import Place, Running
from moonjelly.planning.overhead import overhead_ms
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from moonjelly.profiles import Profile
from moonjelly.rpc.messages import PlanUpdate
from server.core.devices import DeviceState
from server.core.sessions import Session

OVERHEAD_STEP_MS = 1.0
"""Clients size their frames by the server's own share, too: they hear of a change by so much."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Constants of planning.

    Attributes:
        profiles: (device kind, group) to profile.
        latency_factor: batches that a frame takes at its device; ``None``: as few as keep what plans promise.
        rho: share of a device's throughput that may be planned.
    """

    profiles: Mapping[tuple[str, str], Profile]
    latency_factor: float | None
    rho: float


def bandwidth_bps(session: Session) -> float:
    """What planning assumes of a client's uplink: its last report, also while it is silent."""
    return session.bandwidth_bps if session.bandwidth_bps > 0.0 else INITIAL_BANDWIDTH_BPS


def own_ms(devices: Iterable[DeviceState]) -> float:
    """The server's own share of a deadline, as it is now."""
    return overhead_ms(device.overhead_ms for device in devices if device.up)


def budget_of(session: Session, input_sizes: tuple[int, ...], rate_bps: float, own_ms: float) -> tuple[float, ...]:
    """Per variant, what frames of its own size leave of the client's deadline for waiting and inference."""
    frame_bytes = session.sizes.of_variants(input_sizes)
    return budgets(
        session.slo_ms,
        session.fps,
        frame_bytes,
        rate_bps,
        session.rtt_ms,
        own_ms,
        session.response_bytes,
        session.preparation_ms,
    )


def problem_of(
    sessions: Iterable[Session],
    devices: Iterable[DeviceState],
    input_sizes: Mapping[str, tuple[int, ...]],
    rules: Rules,
    previous: Plan | None,
    changes_per_min: float,
    latency_factor: float,
) -> Problem:
    """The snapshot that a policy sees."""
    devices = [device for device in devices if device.up]
    server_ms = own_ms(devices)
    clients = []
    for session in sessions:
        if session.wants_place:
            rate_bps = session.snapshot_bandwidth_bps = bandwidth_bps(session)
            sizes = input_sizes[session.group]
            budget = planned_budgets(budget_of(session, sizes, rate_bps, server_ms), sizes)
            clients.append(Client(session.session_id, session.fps, session.slo_ms, budget, session.group))
    return Problem(
        clients=tuple(clients),
        devices=tuple(planned_device(device) for device in devices),
        profiles=rules.profiles,
        previous=previous,
        latency_factor=latency_factor,
        rho=rules.rho,
        changes_per_min=changes_per_min,
    )


def planned_device(device: DeviceState) -> Device:
    """A device as planning sees it."""
    return Device(device.device_id, device.kind, device.speed)


def running(devices: Iterable[DeviceState], sessions: Iterable[Session]) -> list[Running]:
    """What the devices that are up run now, and for how much."""
    load_fps: dict[int, float] = {}
    for session in sessions:
        if session.plan.placed and session.wants_place:
            load_fps[session.plan.device] = load_fps.get(session.plan.device, 0.0) + session.fps
    return [
        Running(planned_device(device), device.assignment, load_fps.get(device.device_id, 0.0))
        for device in devices
        if device.up and device.assignment is not None
    ]


def told(place: Place, version: int, server_ms: float, latency_factor: float) -> PlanUpdate:
    """What a client is told of its place."""
    return PlanUpdate(
        version=version,
        placed=place.device_id is not None,
        variant=place.variant,
        batch=place.batch,
        device=place.device_id or 0,
        reason=place.reason,
        infer_ms=place.infer_ms,
        overhead_ms=server_ms,
        latency_factor=latency_factor,
    )


def same_place(before: PlanUpdate, after: PlanUpdate) -> bool:
    """Whether the client need not be told."""
    same_share = abs(after.overhead_ms - before.overhead_ms) < OVERHEAD_STEP_MS
    return same_share and before == structs.replace(after, version=before.version, overhead_ms=before.overhead_ms)


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
