"""The checker: every constraint of a plan on the true values, and what the plan is worth.

Policies may round rates to a grid while they search; the checker never does. It knows nothing of how a plan was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moonjelly.errors import ProblemError
from moonjelly.planning.head_room import limit_fps
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from moonjelly.profiles import Profile


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What :func:`check` found.

    Attributes:
        violations: broken constraints in words; empty for a valid plan.
        effectiveness: mapped share of the servable clients (those that some device could serve were they alone);
            1 when there are none. Jellyfish counts clients with ``budget[0] > 0``, which includes some that no device
            can ever serve.
        accuracy: request-weighted mean accuracy over *all* clients; a rejected one counts as 0; 0 without clients.
        utilisation: per device, offered load over throughput at the planned batch (before ``rho``).
        slack_ms: per mapped client, ``budget - latency_factor * latency``.
        changes: devices whose (group, variant) differs from the previous plan's; 0 without a previous plan.
    """

    violations: tuple[str, ...]
    effectiveness: float
    accuracy: float
    utilisation: Mapping[int, float]
    slack_ms: Mapping[int, float]
    changes: int

    @property
    def valid(self) -> bool:
        """No constraint is broken."""
        return not self.violations

    @property
    def min_slack_ms(self) -> float:
        """The tightest mapped client's slack; infinite when none is mapped."""
        return min(self.slack_ms.values(), default=math.inf)

    def require_valid(self) -> None:
        """Raise when a constraint is broken.

        Raises:
            ProblemError: names the first broken constraint and how many there are.
        """
        if self.violations:
            more = f" (and {len(self.violations) - 1} more)" if len(self.violations) > 1 else ""
            raise ProblemError(f"the plan breaks a constraint: {self.violations[0]}{more}")


def check(problem: Problem, plan: Plan) -> PlanReport:
    """Verify ``plan`` against ``problem`` and measure it."""
    violations: list[str] = []
    clients = {client.client_id: client for client in problem.clients}
    served = _check_bookkeeping(problem, plan, clients, violations)
    utilisation: dict[int, float] = {}
    slack_ms: dict[int, float] = {}
    reward = 0.0
    for device, assignment in zip(problem.devices, plan.assignments, strict=False):
        profile = problem.profiles.get((device.kind, assignment.group))
        if fault := _fault_of(device, assignment, profile):
            violations.append(fault)
            continue
        assert profile is not None  # _fault_of names its absence
        members = [clients[one] for one in assignment.clients if one in clients]
        load = math.fsum(client.fps for client in members)
        utilisation[device.device_id] = load / profile.throughput(assignment.variant, assignment.batch, device.speed)
        reward += load * profile.accuracy[assignment.variant]
        _check_members(problem, device, assignment, profile, members, load, violations, slack_ms)
    offered = math.fsum(client.fps for client in problem.clients)
    hosts = _hosts(problem)
    possible = {client.client_id for client in problem.clients if _serves_alone(problem, hosts, client)}
    return PlanReport(
        violations=tuple(violations),
        effectiveness=len(possible & served) / len(possible) if possible else 1.0,
        accuracy=reward / offered if offered else 0.0,
        utilisation=utilisation,
        slack_ms=slack_ms,
        changes=changes(problem.previous, plan),
    )


def serves_alone(problem: Problem, client: Client) -> bool:
    """Whether some device could serve ``client`` were it its only one."""
    return _serves_alone(problem, _hosts(problem), client)


def changes(previous: Plan | None, plan: Plan) -> int:
    """Devices that load another (group, variant) than the previous plan had on them."""
    if previous is None:
        return 0
    before = {one.device_id: (one.group, one.variant) for one in previous.assignments}
    return sum(
        one.device_id in before and before[one.device_id] != (one.group, one.variant) for one in plan.assignments
    )


def _hosts(problem: Problem) -> set[tuple[str, float]]:
    """Kinds and speeds of the devices."""
    return {(device.kind, device.speed) for device in problem.devices}


def _serves_alone(problem: Problem, hosts: Iterable[tuple[str, float]], client: Client) -> bool:
    return any(
        _fits(problem, profile, speed, client)
        for kind, speed in hosts
        if (profile := problem.profiles.get((kind, client.group))) is not None
    )


def _fits(problem: Problem, profile: Profile, speed: float, client: Client) -> bool:
    for variant, budget in enumerate(client.budget_ms):
        if budget <= 0.0:
            continue
        for batch in range(1, profile.max_batch + 1):
            if problem.latency_factor * profile.latency(variant, batch, speed) > budget:
                break
            if client.fps < limit_fps(profile, variant, batch, speed, problem.rho):
                return True
    return False


def _check_bookkeeping(problem: Problem, plan: Plan, clients: Mapping[int, Client], violations: list[str]) -> set[int]:
    """Every device once and in order, every client once; returns the mapped ids."""
    expected = [device.device_id for device in problem.devices]
    planned = [assignment.device_id for assignment in plan.assignments]
    if planned != expected:
        violations.append(f"assignments are for devices {planned}, the problem has {expected} in this order")
    served: set[int] = set()
    for assignment in plan.assignments:
        for client_id in assignment.clients:
            if client_id in served:
                violations.append(f"client {client_id} is mapped twice")
            if client_id not in clients:
                violations.append(f"client {client_id} is mapped but not in the problem")
            served.add(client_id)
    for client_id, reason in plan.rejected.items():
        if client_id not in clients:
            violations.append(f"client {client_id} is rejected but not in the problem")
        if client_id in served:
            violations.append(f"client {client_id} is both mapped and rejected")
        if not reason:
            violations.append(f"client {client_id} is rejected without a reason")
    violations.extend(
        f"client {client_id} is neither mapped nor rejected"
        for client_id in clients
        if client_id not in served and client_id not in plan.rejected
    )
    return served


def _fault_of(device: Device, assignment: Assignment, profile: Profile | None) -> str:
    where = f"device {device.device_id}"
    if profile is None:
        return f"{where} runs group '{assignment.group}', which has no profile on kind '{device.kind}'"
    if not 0 <= assignment.variant < len(profile.variants):
        return f"{where} runs variant {assignment.variant}, the profile has {len(profile.variants)}"
    if not 1 <= assignment.batch <= profile.max_batch:
        return f"{where} runs batch {assignment.batch}, the profile has 1..{profile.max_batch}"
    return ""


def _check_members(
    problem: Problem,
    device: Device,
    assignment: Assignment,
    profile: Profile,
    members: list[Client],
    load: float,
    violations: list[str],
    slack_ms: dict[int, float],
) -> None:
    needed_ms = problem.latency_factor * profile.latency(assignment.variant, assignment.batch, device.speed)
    limit = limit_fps(profile, assignment.variant, assignment.batch, device.speed, problem.rho)
    if members and not load < limit:
        violations.append(f"device {device.device_id} is offered {load:.6g} frames/s; it must be below {limit:.6g}")
    for client in members:
        if client.group != assignment.group:
            violations.append(
                f"client {client.client_id} of group '{client.group}' is mapped to device {device.device_id}, "
                f"which runs group '{assignment.group}'"
            )
            continue
        slack_ms[client.client_id] = client.budget_ms[assignment.variant] - needed_ms
        if needed_ms > client.budget_ms[assignment.variant]:
            violations.append(
                f"client {client.client_id} has {client.budget_ms[assignment.variant]:.6g} ms for variant "
                f"{assignment.variant}; device {device.device_id} needs {needed_ms:.6g} ms at batch {assignment.batch}"
            )
