"""``python -m server.planner FD PARENT``: the planner process. One problem in, one plan out."""

from __future__ import annotations

import logging
import sys
import time

from moonjelly.clock import MonotonicClock
from moonjelly.errors import MoonjellyError, ProtocolError
from moonjelly.planning import Policy, check, create_policy
from server import ipc
from server.channel import Channel, inherited

_log = logging.getLogger(__name__)


def main() -> None:
    """Configure, say ready, plan until the endpoint goes."""
    logging.basicConfig(format="%(asctime)s planner %(levelname)s %(message)s", level=logging.WARNING)
    with inherited() as channel:
        configure = channel.receive()
        assert isinstance(configure, ipc.ConfigurePlanner)
        try:
            policy = create_policy(configure.policy)
        except MoonjellyError as fault:
            channel.send(ipc.Refused(str(fault), fault.exit_code))
            sys.exit(fault.exit_code)
        channel.send(ipc.PlannerReady(configure.policy))
        serve(channel, policy, configure)


def serve(channel: Channel, policy: Policy, configure: ipc.ConfigurePlanner) -> None:
    """Answer requests; of several that wait, the newest.

    Raises:
        PeerGone: the endpoint has gone.
    """
    while True:
        request = channel.receive()
        for newer in channel.ready():
            request = newer
        if isinstance(request, ipc.PlanRequest):
            reply = reply_to(request, policy, configure)
            try:
                channel.send(reply)
            except ProtocolError as fault:  # reasons of any length: policies are plug-ins
                _log.error("run %d: %s", request.run, fault)
                channel.send(ipc.PlanReply(request.run, None, str(fault), reply.cpu_ms))


def reply_to(request: ipc.PlanRequest, policy: Policy, configure: ipc.ConfigurePlanner) -> ipc.PlanReply:
    """Plan once. A policy that fails, or whose plan breaks a constraint, costs its plan, not the process."""
    began = time.process_time()
    plan, error = None, ""
    try:
        made = policy.plan(
            request.problem,
            seed=configure.seed + request.run,
            time_budget_ms=configure.budget_ms,
            clock=MonotonicClock(),
        )
        check(request.problem, made).require_valid()
        plan = made
    except Exception as fault:  # policies are plug-ins
        _log.exception("policy '%s' failed in run %d", configure.policy, request.run)
        error = f"{type(fault).__name__}: {fault}"
    return ipc.PlanReply(request.run, plan, error, (time.process_time() - began) * 1000.0)


if __name__ == "__main__":
    main()
