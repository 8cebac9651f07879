"""In overload: as many clients as before, but heavier ones where there is room."""

from __future__ import annotations

from moonjelly.planning.assemble import Draft, finish, room_of, smallest_batch
from moonjelly.planning.problem import Client, Plan, Problem


def exchange(problem: Problem, plan: Plan) -> Plan:
    """Let rejected clients take the places of lighter ones, heaviest first and on the most accurate devices first.

    The number of placed clients stays the same or grows; the request-weighted accuracy does not fall.
    """
    clients = {client.client_id: client for client in problem.clients}
    drafts = [
        Draft(device, one.group, one.variant, [clients[client_id] for client_id in one.clients])
        for device, one in zip(problem.devices, plan.assignments, strict=True)
    ]
    by_accuracy = sorted(drafts, key=lambda one: -problem.profiles[one.device.kind, one.group].accuracy[one.variant])
    rooms = [room_of(problem, draft) for draft in by_accuracy]
    waiting = sorted((clients[client_id] for client_id in plan.rejected), key=lambda one: -one.fps)
    for client in waiting:
        for index, draft in enumerate(by_accuracy):
            if draft.group == client.group and _replace(problem, draft, client, rooms[index]):
                rooms[index] = room_of(problem, draft)
                break
    return finish(problem, drafts)


def _replace(problem: Problem, draft: Draft, client: Client, room: float) -> bool:
    """Put ``client`` in the place of the lightest member that makes room for it, if one does."""
    lighter = [one for one in draft.clients if client.fps - room < one.fps < client.fps]
    for member in sorted(lighter, key=lambda one: one.fps):
        others = [one for one in draft.clients if one is not member]
        if smallest_batch(problem, draft, [*others, client]) is not None:
            draft.clients = [*others, client]
            return True
    return False
