"""How many clients' plan fits into one message to or from the planner."""

from __future__ import annotations

import contextlib

from moonjelly.errors import ConfigError
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from server import channel, ipc
from server.core.settings import Settings

_LARGEST_ID = 2**32 - 1
_FEW = 20
"""More than the shortest notation of a list holds."""
_REASON = "x" * 160
"""As long as the reason of a rejection may be on average."""


def check_plan_fits(settings: Settings, kinds: tuple[str, ...], limit_bytes: int) -> None:
    """Refuse more sessions than the planner can be told of.

    Args:
        settings: of the server.
        kinds: per device.
        limit_bytes: of one message.

    Raises:
        ConfigError: ``max_sessions`` is too large for this host and these zoos.
    """
    most = most_sessions(settings, kinds, limit_bytes)
    if settings.max_sessions > most:
        raise ConfigError(
            f"max_sessions = {settings.max_sessions}: a plan for so many clients does not fit into the {limit_bytes} "
            f"bytes that a message to the planner may have on this host; at most {most} with these zoos and devices "
            "(more where net.core.wmem_max is larger)"
        )


def most_sessions(settings: Settings, kinds: tuple[str, ...], limit_bytes: int) -> int:
    """For how many clients the planner's messages are large enough."""
    few, more = (_message_bytes(settings, kinds, clients) for clients in (_FEW, _FEW + 1))
    return _FEW + (limit_bytes - few) // (more - few)


def message_limit_bytes() -> int:
    """Of one message between processes of this host."""
    with contextlib.ExitStack() as ends:
        ours, _ = (ends.enter_context(end) for end in channel.pair())
        return channel.limit_bytes(ours)


def _message_bytes(settings: Settings, kinds: tuple[str, ...], clients: int) -> int:
    """Of the larger one of request and reply with so many of the largest clients."""
    rules = settings.rules
    group, zoo = max(settings.zoos.items(), key=lambda item: (len(item[1].variants), len(item[0])))
    known = tuple(
        Client(_LARGEST_ID - number, 1.0, 1.0, (0.0,) * len(zoo.variants), group) for number in range(clients)
    )
    ids = tuple(client.client_id for client in known)
    plan = Plan(
        tuple(Assignment(device, group, 0, 1, ids if device == 0 else ()) for device in range(len(kinds))),
        dict.fromkeys(ids, _REASON),
    )
    devices = tuple(
        Device(index, kind, speed) for index, (kind, speed) in enumerate(zip(kinds, settings.speeds, strict=True))
    )
    problem = Problem(known, devices, rules.profiles, Plan(plan.assignments), rho=rules.rho)
    request, reply = ipc.PlanRequest(_LARGEST_ID, problem), ipc.PlanReply(_LARGEST_ID, plan, "", 1.0)
    return max(len(ipc.encode(request)), len(ipc.encode(reply)))
