"""Clients whose link is at present too poor for any plan.

A policy rejects them, and rightly: planning for them would drag a whole device down to its smallest variant. But a
client that is told "rejected" sends nothing, so its bandwidth would never be measured again. They are therefore
served without a promise: a device for each, whose dispatcher takes what can make it and drops the rest.
"""

from __future__ import annotations

from moonjelly.planning.check import serves_alone
from moonjelly.planning.problem import Assignment, Plan, Problem


def devices_for_starved(problem: Problem, plan: Plan) -> dict[int, int]:
    """Device per rejected client that no device could serve even alone: the one that answers a single frame soonest.

    Clients that some device could serve were rejected for lack of room and stay so; a client whose group no device
    runs has no entry either.
    """
    devices: dict[int, int] = {}
    for client in problem.clients:
        if client.client_id in plan.rejected and not serves_alone(problem, client):
            hosts = [assignment for assignment in plan.assignments if assignment.group == client.group]
            if hosts:
                soonest = min(hosts, key=lambda host: (_alone_ms(problem, host), host.device_id))
                devices[client.client_id] = soonest.device_id
    return devices


def _alone_ms(problem: Problem, assignment: Assignment) -> float:
    device = next(device for device in problem.devices if device.device_id == assignment.device_id)
    return problem.profiles[device.kind, assignment.group].latency(assignment.variant, 1, device.speed)
