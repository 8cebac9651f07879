"""A client's place: what a plan gives it, where it goes before a plan knows it, and when its place no longer holds.

These are the rules between one plan and the next. The live server and the simulation both follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moonjelly.adaptation import next_variant
from moonjelly.planning.best_effort import devices_for_starved
from moonjelly.planning.head_room import limit_fps
from moonjelly.planning.problem import Assignment, Device, Plan, Problem
from moonjelly.profiles import Profile

BANDWIDTH_CHANGE = 0.15
"""A report that differs by no more than this share from what was planned with changes nothing."""
NO_PROMISE = "served without a promise: its link is too poor for its deadline on any device"
NO_ROOM_NOW = "no device can take it as they run now; a plan is being made"


@dataclass(frozen=True, slots=True)
class Place:
    """What one client has.

    Attributes:
        device_id: takes its frames; ``None``: they are rejected.
        variant: index to size its frames for, at most.
        batch: planned size.
        infer_ms: profiled time of what the device is planned to run.
        promised: the plan counts with its frames; else they are served as far as they can make it.
        reason: why it is rejected, or has no promise.
    """

    device_id: int | None = None
    variant: int = 0
    batch: int = 1
    infer_ms: float = 0.0
    promised: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A device at work.

    Attributes:
        assignment: what the plan in force has it run.
        load_fps: rates of the clients that it serves, added up.
    """

    device: Device
    assignment: Assignment
    load_fps: float


Profiles = Mapping[tuple[str, str], Profile]


def places(problem: Problem, plan: Plan) -> Iterator[tuple[int, Place]]:
    """What ``plan`` gives each client of ``problem``, by client id.

    A rejected client that no device could serve even alone is served without a promise, so that its link goes on
    being measured.
    """
    devices = {device.device_id: device for device in problem.devices}
    assignments = {assignment.device_id: assignment for assignment in plan.assignments}
    for device_id, assignment in assignments.items():
        if assignment.clients:
            place = _on(devices[device_id], assignment, problem.profiles)
            yield from ((client_id, place) for client_id in assignment.clients)
    starved = devices_for_starved(problem, plan)
    for client_id, reason in plan.rejected.items():
        if client_id in starved:
            host = _on(devices[starved[client_id]], assignments[starved[client_id]], problem.profiles)
            yield client_id, replace(host, variant=0, promised=False, reason=NO_PROMISE)
        else:
            yield client_id, Place(reason=reason)


def newcomer(
    group: str,
    fps: float,
    budget_ms: Sequence[float],
    running: Iterable[Running],
    profiles: Profiles,
    latency_factor: float,
    rho: float,
    before: int | None = None,
) -> Place:
    """Where a client goes that no plan counts with: to the least loaded device that can take it as it runs now.

    The conditions are the planner's (``moonjelly.planning.problem``), so the plan in force stays feasible.

    Args:
        group: the client's.
        fps: its nominal rate.
        budget_ms: per variant of its group.
        running: devices of any group.
        profiles: (device kind, group) to profile.
        latency_factor: of the planning problem.
        rho: likewise.
        before: the device that it had before it was away, which is looked at first.
    """
    for one in sorted(running, key=lambda one: (one.device.device_id != before, one.load_fps, one.device.device_id)):
        assignment = one.assignment
        if assignment.group != group:
            continue
        place = _on(one.device, assignment, profiles)
        profile = profiles[one.device.kind, group]
        most_fps = limit_fps(profile, assignment.variant, assignment.batch, one.device.speed, rho)
        in_time = latency_factor * place.infer_ms <= budget_ms[assignment.variant]
        if in_time and one.load_fps + fps < most_fps:
            return place
    return Place(reason=NO_ROOM_NOW)


def kept(
    before: Place, group: str, fps: float, running: Iterable[Running], profiles: Profiles, rho: float
) -> Place | None:
    """The place that a client had before it was away, until the next plan; ``None`` where it holds no longer.

    It need not suit what its device runs now. When many come back at once, the plan that the first of them asks for may
    have given the device to a few; it still has what it ran for all of them, and can fall back to it. So the place
    holds while the device would carry its clients at what it ran then.

    Args:
        before: with a device.
        group: the client's.
        fps: its nominal rate.
        running: devices of any group, without this client's load.
        profiles: (device kind, group) to profile.
        rho: of the planning problem.
    """
    for one in running:
        if (one.device.device_id, one.assignment.group) == (before.device_id, group):
            profile = profiles[one.device.kind, group]
            most_fps = limit_fps(profile, before.variant, before.batch, one.device.speed, rho)
            return before if one.load_fps + fps < most_fps else None
    return None


def link_changed(bandwidth_bps: float, planned_bps: float) -> bool:
    """Whether a report is worth comparing with the plan: planning again with the same link gives the same plan."""
    return abs(bandwidth_bps - planned_bps) > BANDWIDTH_CHANGE * planned_bps


def link_fell(bandwidth_bps: float, planned_bps: float) -> bool:
    """Whether a client may have to be asked for less than was planned."""
    return bandwidth_bps < (1.0 - BANDWIDTH_CHANGE) * planned_bps


def asked_variant(
    place: Place,
    bandwidth_bps: float,
    planned_bps: float,
    budget_ms: Callable[[], Sequence[float]],
    latency_factor: float,
) -> int:
    """What a client is to size its next frames for: as planned, and less at once where its link fell since.

    Args:
        place: the client's.
        bandwidth_bps: of its link, now.
        planned_bps: what its place was computed with.
        budget_ms: per variant, now; asked for only where it matters.
        latency_factor: of the planning problem.
    """
    if not (place.promised and link_fell(bandwidth_bps, planned_bps)):
        return place.variant
    return next_variant(place.variant, budget_ms(), place.infer_ms, latency_factor)


def is_broken(place: Place, budget_ms: Sequence[float], latency_factor: float) -> bool:
    """Whether the time that the plan promised is no longer there."""
    return place.promised and budget_ms[place.variant] < latency_factor * place.infer_ms


def _on(device: Device, assignment: Assignment, profiles: Profiles) -> Place:
    infer_ms = profiles[device.kind, assignment.group].latency(assignment.variant, assignment.batch, device.speed)
    return Place(device.device_id, assignment.variant, assignment.batch, infer_ms, True)
