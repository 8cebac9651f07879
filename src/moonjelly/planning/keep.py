"""The fallback: keep what the devices hold, keep the clients that still fit, lower or reject the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moonjelly.clock import Clock
from moonjelly.planning.assemble import finish, held_by, idle_draft, place
from moonjelly.planning.problem import Plan, Problem


def keep_previous(problem: Problem) -> Plan:
    """Plan without a search: no device changes its variant.

    Clients stay on their device while their budget and its throughput allow it (the most patient ones first); the
    others go to the most accurate device that can take them, or are rejected.
    """
    held = held_by(problem.previous)
    drafts = [idle_draft(problem, device, held) for device in problem.devices]
    clients = {client.client_id: client for client in problem.clients}
    for draft in drafts:
        if draft.device.device_id in held:
            before = [clients[one] for one in held[draft.device.device_id].clients if one in clients]
            place(problem, [draft], [client for client in before if client.group == draft.group])
    return finish(problem, drafts)


@dataclass(frozen=True)
class KeepPrevious:
    """:func:`keep_previous` as a policy: what a server does that never plans again."""

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """See :func:`keep_previous`; there is nothing to draw and nothing to cut short."""
        return keep_previous(problem)
