"""The planner process with as many clients as a server may have."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from moonjelly.errors import ConfigError
from moonjelly.planning.instances import reference_profile
from moonjelly.rpc import messages
from moonjelly.units import NS_PER_S
from server import ipc
from server.capacity import check_plan_fits, message_limit_bytes, most_sessions
from server.config import MAX_SESSIONS
from server.core import Core
from server.core import events as ev
from server.core.placement import Rules
from server.core.settings import Settings
from server.processes import PlannerLink

PROFILE = reference_profile(12)
ZOO = messages.ZooInfo(
    "paper", "default", tuple(messages.ZooVariant(one.name, one.input_size, 0.2) for one in PROFILE.variants), ("car",)
)
KIND = PROFILE.device_kind
SETTINGS = Settings(
    zoos={"default": ZOO},
    rules=Rules({(KIND, "default"): PROFILE}, 2.0, 0.9),
    speeds=[1.0, 1.0],
    slots=4,
    policy="keep-previous",
    interval_ns=NS_PER_S // 2,
    plan_budget_ns=NS_PER_S // 4,
    session_ttl_ns=10 * NS_PER_S,
    max_sessions=1,
    max_frame_bytes=1000,
    max_outstanding=3,
)
NOW_NS = 100 * NS_PER_S


def largest() -> int:
    """Sessions that this host allows."""
    return min(MAX_SESSIONS, most_sessions(SETTINGS, (KIND, KIND), message_limit_bytes()))


def request_for(clients: int, bandwidth_bps: float) -> ipc.PlanRequest:
    """What a core with so many clients asks its planner, the plan before it in force."""
    core = Core(replace(SETTINGS, max_sessions=clients))
    asked: list[ipc.PlanRequest] = []

    def emit(event: ev.Event, now_ns: int) -> None:
        asked.extend(one.request for one in core.handle(event, now_ns) if isinstance(one, ev.AskPlanner))

    for device in (0, 1):
        emit(ev.DeviceUp(device, KIND, "default"), NOW_NS)
    for stream in range(1, clients + 1):
        hello = messages.Hello(name="cam", slo_ms=100.0, fps=1.0, bandwidth_bps=bandwidth_bps)
        emit(ev.Joined(stream, hello, stream.to_bytes(16, "big")), NOW_NS)
    for round_ in (1, 2):
        emit(ev.PlanMade(ipc.PlanReply(asked[-1].run, None, "", 0.0)), NOW_NS + round_ * NS_PER_S)
        emit(ev.Woken(), NOW_NS + round_ * NS_PER_S)
    assert len(asked[-1].problem.clients) == clients
    return asked[-1]


@pytest.mark.parametrize("bandwidth_bps", [50e6, 1e3], ids=["placed or full", "starved"])
@pytest.mark.asyncio(loop_scope="session")
async def test_the_largest_allowed_plan_goes_there_and_back(bandwidth_bps: float) -> None:
    request = request_for(largest(), bandwidth_bps)
    replies: asyncio.Queue[ipc.PlanReply] = asyncio.Queue()
    planner = PlannerLink(ipc.ConfigurePlanner("keep-previous", 0, 60_000.0), replies.put_nowait, lambda: None)
    await planner.start()
    try:
        planner.ask(request)
        reply = await asyncio.wait_for(replies.get(), 60)
    finally:
        await planner.stop()
    assert (reply.run, reply.error) == (request.run, "")
    assert reply.plan is not None
    known = sum(len(one.clients) for one in reply.plan.assignments) + len(reply.plan.rejected)
    assert known == len(request.problem.clients)


def test_more_sessions_than_a_message_holds_are_refused_in_words() -> None:
    kinds = (KIND, KIND)
    most = most_sessions(SETTINGS, kinds, 100_000)
    check_plan_fits(replace(SETTINGS, max_sessions=most), kinds, 100_000)
    words = f"max_sessions = {most + 1}: a plan for so many clients does not fit into the 100000 bytes"
    with pytest.raises(ConfigError, match=re.escape(words) + f".*at most {most} with these zoos"):
        check_plan_fits(replace(SETTINGS, max_sessions=most + 1), kinds, 100_000)
