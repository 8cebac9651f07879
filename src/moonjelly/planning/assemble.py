"""From lanes and fillings back to a plan for devices and clients that have names.

Equal lanes go to the devices that already hold them; a device without a lane keeps what it has; clients that the
integer grid left over get a last chance on the true values; whoever is rejected is told why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moonjelly.errors import ProblemError
from moonjelly.planning.check import serves_alone
from moonjelly.planning.head_room import limit_fps
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from moonjelly.planning.tables import Tables
from moonjelly.profiles import Profile
from moonjelly.types import DEFAULT_GROUP


@dataclass(slots=True)
class Draft:
    """A device while its plan is being made.

    Attributes:
        device: the device.
        group: model group that it is to serve.
        variant: index into the group's profile.
        clients: that it serves so far; :func:`finish` adds to them.
    """

    device: Device
    group: str
    variant: int
    clients: list[Client] = field(default_factory=list)


def assemble(packer: Packer, lanes: Sequence[int], wanted: bytes | None = None) -> Plan:
    """The plan that fills one device per entry of ``lanes``.

    Args:
        packer: of the compiled problem.
        lanes: in the order in which they are filled; of each device class at most as many as it has devices.
        wanted: clients of each type that are admitted; all by default. Others only get what is left over.
    """
    tables = packer.tables
    remaining = tables.full if wanted is None else wanted
    placed = []
    for lane in lanes:
        _, after = packer.step(lane, remaining)
        placed.append([before - left for before, left in zip(remaining, after, strict=True)])
        remaining = after
    return assemble_filled(tables, [lane % len(tables.lanes) for lane in lanes], placed)


def assemble_filled(tables: Tables, lanes: Sequence[int], placed: Sequence[Sequence[int]]) -> Plan:
    """The plan that gives the ``k``-th device ``placed[k][t]`` clients of type ``t``; see :func:`assemble`."""
    members = [list(reversed(one)) for one in tables.members]
    taken = [
        (lane, [tables.problem.clients[members[one].pop()] for one, count in enumerate(row) for _ in range(count)])
        for lane, row in zip(lanes, placed, strict=True)
    ]
    return finish(tables.problem, _match(tables, taken))


def previous_lanes(tables: Tables) -> dict[int, int]:
    """Device position to the lane that the previous plan has on it, where that still exists."""
    previous = tables.problem.previous
    if previous is None:
        return {}
    held = {one.device_id: (one.group, one.variant) for one in previous.assignments}
    found = {}
    for position in tables.class_of:
        before = held.get(tables.problem.devices[position].device_id)
        lane = tables.lane_at(position, *before) if before is not None else None
        if lane is not None:
            found[position] = lane
    return found


def finish(problem: Problem, drafts: Sequence[Draft]) -> Plan:
    """Serve who is left over where the true values allow it, choose batches, name the reasons of the rejected.

    Raises:
        ProblemError: a draft holds clients that its device cannot serve together.
    """
    placed = {client.client_id for draft in drafts for client in draft.clients}
    left = [client for client in problem.clients if client.client_id not in placed]
    if left:
        place(problem, drafts, left)
    assignments = tuple(_assignment(problem, draft) for draft in drafts)
    served = {client_id for assignment in assignments for client_id in assignment.clients}
    return Plan(assignments, {one.client_id: reason_of(problem, one) for one in left if one.client_id not in served})


def place(problem: Problem, drafts: Sequence[Draft], clients: Iterable[Client]) -> None:
    """Add each client that fits, light ones first, to the most accurate device that takes it beside its others."""
    by_accuracy = sorted(drafts, key=lambda draft: -_profile(problem, draft).accuracy[draft.variant])
    rooms = [room_of(problem, draft) for draft in by_accuracy]
    for client in sorted(clients, key=lambda one: one.fps):
        for index, draft in enumerate(by_accuracy):
            if client.fps < rooms[index] and draft.group == client.group:
                together = [*draft.clients, client]
                if smallest_batch(problem, draft, together) is not None:
                    draft.clients = together
                    rooms[index] = room_of(problem, draft)
                    break


def idle_draft(problem: Problem, device: Device, held: Mapping[int, Assignment]) -> Draft:
    """What a device without clients runs: what it holds, else the cheapest variant of the default group."""
    before = held.get(device.device_id)
    if before is not None:
        profile = problem.profiles.get((device.kind, before.group))
        if profile is not None and 0 <= before.variant < len(profile.variants):
            return Draft(device, before.group, before.variant)
    groups = sorted(group for kind, group in problem.profiles if kind == device.kind)
    return Draft(device, DEFAULT_GROUP if DEFAULT_GROUP in groups else groups[0], 0)


def held_by(previous: Plan | None) -> dict[int, Assignment]:
    """Device id to its assignment in the previous plan."""
    return {one.device_id: one for one in previous.assignments} if previous is not None else {}


def smallest_batch(problem: Problem, draft: Draft, clients: Iterable[Client]) -> int | None:
    """The smallest batch with which a device serves exactly ``clients`` under its draft's variant, if there is one."""
    members = list(clients)
    profile = _profile(problem, draft)
    load = math.fsum(client.fps for client in members)
    patience = min((client.budget_ms[draft.variant] for client in members), default=math.inf)
    for batch in range(1, profile.max_batch + 1):
        if problem.latency_factor * profile.latency(draft.variant, batch, draft.device.speed) > patience:
            return None
        if not members or load < limit_fps(profile, draft.variant, batch, draft.device.speed, problem.rho):
            return batch
    return None


def reason_of(problem: Problem, client: Client) -> str:
    """Why a client has no place, in words."""
    if not problem.devices:
        return "there is no device"
    kinds = {device.kind for device in problem.devices}
    if not any(kind in kinds and group == client.group for kind, group in problem.profiles):
        return f"no device has a profile for its group '{client.group}'"
    if not any(client.budget_ms):
        return f"its link carries no variant at {client.fps:g} frames/s within {client.slo_ms:g} ms"
    if not serves_alone(problem, client):
        return (
            f"no device is fast enough for it: at most {max(client.budget_ms):.1f} ms of its {client.slo_ms:g} ms are "
            f"left for the server at {client.fps:g} frames/s"
        )
    return "the devices are full"


def room_of(problem: Problem, draft: Draft) -> float:
    """Frames/s that the device could take beside its clients at the best batch that they allow."""
    profile, speed = _profile(problem, draft), draft.device.speed
    patience = min((client.budget_ms[draft.variant] for client in draft.clients), default=math.inf)
    limit = max(
        (
            limit_fps(profile, draft.variant, batch, speed, problem.rho)
            for batch in range(1, profile.max_batch + 1)
            if problem.latency_factor * profile.latency(draft.variant, batch, speed) <= patience
        ),
        default=0.0,
    )
    return limit - math.fsum(client.fps for client in draft.clients)


def grow_batches(problem: Problem, plan: Plan) -> Plan:
    """Jellyfish's planned batches: as large as every client's budget allows while the throughput does not fall."""
    clients = {client.client_id: client for client in problem.clients}
    grown = []
    for device, one in zip(problem.devices, plan.assignments, strict=True):
        profile = problem.profiles[device.kind, one.group]
        patience = min((clients[client_id].budget_ms[one.variant] for client_id in one.clients), default=0.0)
        batch = one.batch
        while (
            batch < profile.max_batch
            and problem.latency_factor * profile.latency(one.variant, batch + 1, device.speed) <= patience
            and profile.throughput(one.variant, batch + 1) >= profile.throughput(one.variant, batch)
        ):
            batch += 1
        grown.append(replace(one, batch=batch))
    return replace(plan, assignments=tuple(grown))


def _profile(problem: Problem, draft: Draft) -> Profile:
    return problem.profiles[draft.device.kind, draft.group]


def _match(tables: Tables, taken: Sequence[tuple[int, list[Client]]]) -> list[Draft]:
    """Give every filled lane to a device of its class, to one that holds it already where there is one."""
    problem = tables.problem
    held = held_by(problem.previous)
    before = previous_lanes(tables)
    drafts: dict[int, Draft] = {}
    for index, device_class in enumerate(tables.classes):
        mine = [one for one in taken if tables.lanes[one[0]].device_class == index]
        free = list(device_class.positions)
        unmatched = []
        for lane, clients in mine:
            position = next((one for one in free if before.get(one) == lane), None)
            if position is None:
                unmatched.append((lane, clients))
                continue
            free.remove(position)
            drafts[position] = _draft(tables, position, lane, clients)
        for lane, clients in unmatched:
            position = free.pop(0)
            drafts[position] = _draft(tables, position, lane, clients)
        for position in free:
            drafts[position] = idle_draft(problem, problem.devices[position], held)
    return [drafts[position] for position in range(len(problem.devices))]


def _draft(tables: Tables, position: int, lane: int, clients: list[Client]) -> Draft:
    one = tables.lanes[lane]
    return Draft(tables.problem.devices[position], one.group, one.variant, clients)


def _assignment(problem: Problem, draft: Draft) -> Assignment:
    batch = smallest_batch(problem, draft, draft.clients)
    members = tuple(client.client_id for client in draft.clients)
    if batch is None:
        raise ProblemError(
            f"device {draft.device.device_id} cannot serve clients {members} together with variant {draft.variant} of "
            f"group '{draft.group}' at any batch size; give it fewer, or another variant"
        )
    return Assignment(draft.device.device_id, draft.group, draft.variant, batch, members)
