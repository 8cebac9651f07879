"""The server's small parts: messages between processes, shared memory, outbox, options, restart pauses."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import selectors
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from moonjelly import config
from moonjelly.clock import Clock
from moonjelly.errors import ConfigError, ProtocolError
from moonjelly.planning import Assignment, Client, Device, Plan, Problem
from moonjelly.profiles import Profile
from moonjelly.rpc import messages
from moonjelly.types import Outcome, Variant
from moonjelly.units import ClientInstant, ServerInstant
from server import endpoint, ipc
from server.arena import RUNNING, create_arena
from server.channel import Channel, PeerGone, pair
from server.config import ServerOptions
from server.core.slots import SlotPool
from server.endpoint import MAX_WAITING_ITEMS, Outbox, gather
from server.executor.intake import Closed, DirectIntake, Intake, PreparingIntake
from server.planner import reply_to
from server.processes import Restarts, StartError

PROFILE = Profile("gpu", (Variant("net", "net", 64),), (0.5,), ((1.0, 2.0),))
SUBMIT = ipc.Submit(1, 2, 3, 4, 5, "default", 64, 64, 10, 20)
ANSWER = ipc.Answer(1, Outcome.FAILED, "why", messages.PackedDetections(2, b"boxes"), 5, 6)
BATCH = ipc.Batch(0, "default", 1, 1, (0,), 2, 3, 4.5, 0.9, 0, 6, 7, 8, 1, (ANSWER,))


class TestMessages:
    @pytest.mark.parametrize(
        "message",
        [
            SUBMIT,
            BATCH,
            ipc.Submits((SUBMIT, SUBMIT)),
            ipc.Serve(1, "default", 2, 3),
            ipc.Forget(7),
            ipc.Ready(0, "cpu", "a CPU", "onnx", {"onnxruntime": "1"}),
            ipc.Switched(0, 1, "default", 2, ("a", "b")),
            ipc.PlanRequest(
                3,
                Problem(
                    (Client(1, 15.0, 100.0, (5.0,)),),
                    (Device(0, "gpu"),),
                    {("gpu", "default"): PROFILE},
                    Plan((Assignment(0, "default", 0, 1, (1,)),), {2: "full"}),
                ),
            ),
            ipc.PlanReply(3, None, "boom", 1.5),
            ipc.LogRows((), (), ()),
        ],
        ids=lambda message: type(message).__name__,
    )
    def test_they_survive(self, message: ipc.Message) -> None:
        assert ipc.decode(ipc.encode(message)) == message

    @pytest.mark.parametrize("data", [b"", b"\xff", b"\x01garbage"])
    def test_garbage_is_refused(self, data: bytes) -> None:
        with pytest.raises(ProtocolError, match="between processes"):
            ipc.decode(data)


class TestChannel:
    def test_messages_arrive_in_order_and_the_end_is_noticed(self) -> None:
        ours, theirs = (Channel(end) for end in pair())
        for key in range(3):
            assert ours.send(ipc.Forget(key))
        assert list(theirs.ready()) == [ipc.Forget(0), ipc.Forget(1), ipc.Forget(2)]
        with pytest.raises(ProtocolError, match=r"a PlanReply of \d+ bytes; a message between processes has at most"):
            ours.send(ipc.PlanReply(1, None, "x" * (1 << 20), 0.0))
        ours.close()
        with pytest.raises(PeerGone, match="the other process has gone"):
            theirs.receive()
        with pytest.raises(PeerGone):
            theirs.send(ipc.Forget(1))
        theirs.close()

    def test_a_full_channel_says_so_and_loses_nothing(self) -> None:
        ours, theirs = (Channel(end) for end in pair())
        ours.set_blocking(False)
        sent = 0
        while ours.send(ipc.Refused("x" * 50_000, sent)):
            sent += 1
        assert [message.exit_code for message in theirs.ready() if isinstance(message, ipc.Refused)] == list(
            range(sent)
        )
        assert ours.send(ipc.Forget(1))
        ours.close()
        theirs.close()


class TestArena:
    def test_slots_hold_what_was_written(self) -> None:
        with contextlib.closing(create_arena("test", 4, 100)) as arena:
            for slot in range(4):
                arena.write(slot, bytes([slot]) * 100)
            assert [bytes(arena.read(slot, 100)) for slot in range(4)] == [bytes([slot]) * 100 for slot in range(4)]
            with pytest.raises(ValueError, match="101 bytes do not fit into a slot of 100"):
                arena.write(0, bytes(101))

    def test_what_runs_is_marked(self) -> None:
        with contextlib.closing(create_arena("test", 5000, 10)) as arena:
            arena.mark(4999, RUNNING)
            arena.write(0, b"x" * 10)
            assert arena.running() == {4999}
            arena.clear()
            assert arena.running() == frozenset()
            assert bytes(arena.read(0, 10)) == b"x" * 10

    def test_the_pool_gives_each_slot_once_and_the_last_freed_first(self) -> None:
        pool = SlotPool(3)
        assert [pool.take() for _ in range(4)] == [0, 1, 2, None]
        pool.free(1)
        pool.free(0)
        assert [pool.take(), pool.take()] == [0, 1]
        with pytest.raises(ValueError, match="slot 7 is freed twice"):
            pool.free(7)


def ack(frame_id: int) -> messages.Ack:
    return messages.Ack(frame_id, ServerInstant(1), ServerInstant(2), 3)


class TestOutbox:
    async def test_an_ack_waits_for_a_companion_but_not_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(endpoint, "ACK_LINGER_S", 3600.0)
        outbox = Outbox()
        outbox.put(ack(1))
        taking = asyncio.ensure_future(outbox.take())
        await asyncio.sleep(0)
        assert not taking.done()
        pong = messages.Pong(ClientInstant(1), ServerInstant(2), ServerInstant(3))
        outbox.put(pong)
        assert await taking == [ack(1), pong]
        monkeypatch.setattr(endpoint, "ACK_LINGER_S", 0.0)
        alone = Outbox()
        alone.put(ack(2))
        assert await alone.take() == [ack(2)]

    async def test_the_end_comes_after_what_was_put(self) -> None:
        outbox = Outbox()
        outbox.put(ack(1))
        outbox.end()
        assert await outbox.take() == [ack(1)]
        assert await outbox.take() == []

    async def test_it_is_bounded(self) -> None:
        outbox = Outbox()
        for number in range(MAX_WAITING_ITEMS):
            outbox.put(ack(number))
        assert not outbox.overrun.done()
        outbox.put(ack(0))
        assert outbox.overrun.done()

    def test_items_of_one_kind_keep_their_order_and_the_last_plan_counts(self) -> None:
        plans = [messages.PlanUpdate(version, True, 0) for version in (1, 2)]
        (message,) = gather([ack(1), plans[0], ack(2), plans[1]])
        assert message.acks == (ack(1), ack(2))
        assert message.plan == plans[1]
        assert not message.results

    def test_no_error_is_lost_to_another_one(self) -> None:
        errors = [messages.StreamError("INVALID_ARGUMENT", "old", frame_id=number) for number in (3, 4)]
        sent = list(gather([ack(1), errors[0], errors[1], ack(5)]))
        assert [message.error for message in sent] == [*errors, None]
        assert [message.acks for message in sent] == [(ack(1),), (), (ack(5),)]


class Stubborn:
    """A policy that always gives the same plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        return self._plan


class TestPlanner:
    CONFIGURE = ipc.ConfigurePlanner("stubborn", 0, 250.0)
    PROBLEM = Problem((Client(1, 15.0, 100.0, (50.0,)),), (Device(0, "gpu"),), {("gpu", "default"): PROFILE})

    def reply(self, assignment: Assignment) -> ipc.PlanReply:
        return reply_to(ipc.PlanRequest(7, self.PROBLEM), Stubborn(Plan((assignment,), {})), self.CONFIGURE)

    def test_a_plan_that_holds_is_passed_on(self) -> None:
        reply = self.reply(Assignment(0, "default", 0, 1, (1,)))
        assert (reply.run, reply.error) == (7, "")
        assert reply.plan == Plan((Assignment(0, "default", 0, 1, (1,)),), {})

    @pytest.mark.parametrize(
        ("assignment", "text"),
        [
            (Assignment(9, "default", 0, 1, (1,)), r"assignments are for devices \[9\]"),
            (Assignment(0, "boats", 0, 1, (1,)), "runs group 'boats', which has no profile"),
            (Assignment(0, "default", 5, 1, (1,)), "runs variant 5"),
            (Assignment(0, "default", 0, 99, (1,)), "runs batch 99"),
            (Assignment(0, "default", 0, 1), "client 1 is neither mapped nor rejected"),
        ],
    )
    def test_a_plan_that_breaks_a_constraint_never_reaches_the_server(self, assignment: Assignment, text: str) -> None:
        reply = self.reply(assignment)
        assert reply.plan is None
        assert re.search(text, reply.error)


class TestOptions:
    def load(self, **overrides: Any) -> ServerOptions:
        return config.load(ServerOptions, overrides=overrides)

    def test_defaults(self) -> None:
        options = self.load()
        assert (options.host, options.port, options.interval_s, options.max_batch) == ("127.0.0.1", 10001, 0.5, 12)
        assert options.zoos == {"default": "synthetic"}

    def test_zoos_by_group(self, tmp_path: Path) -> None:
        odd = str(tmp_path / "a=b")
        assert self.load(zoo=("synthetic", "boats=harbour")).zoos == {"default": "synthetic", "boats": "harbour"}
        assert self.load(zoo=(odd,)).zoos == {"default": odd}
        with pytest.raises(ConfigError, match="two zoos for one group among a, b; write GROUP=ZOO"):
            self.load(zoo=("a", "b"))

    def test_answers_by_group(self) -> None:
        options = self.load(zoo=("a", "boats=b"), runtime="simulated", answers=("/here/a.json", "boats=there"))
        assert options.answer_places == {"default": "/here/a.json", "boats": str(Path("there").absolute())}

    def test_the_latency_factor_is_two_a_number_or_found_but_for_published_policies(self) -> None:
        assert self.load().fixed_factor == 2.0
        assert self.load(latency_factor="auto").fixed_factor is None
        assert self.load(latency_factor="1.5").fixed_factor == 1.5
        assert self.load(policy="sa-dp:origin=previous", latency_factor="auto").fixed_factor == 2.0
        assert self.load(policy="sa-dp", latency_factor=1.5).fixed_factor == 1.5
        with pytest.raises(ConfigError, match=r"'latency_factor' = 'many': a positive number .* or auto"):
            self.load(latency_factor="many")

    def test_a_variable_that_is_no_option_is_named(self) -> None:
        environment = {"MOONJELLY_SERVER_PROT": "1", "MOONJELLY_DATA": "/data", "MOONJELLY_CLIENT_FPS": "5"}
        with pytest.raises(
            ConfigError, match=r"variable MOONJELLY_SERVER_PROT; after MOONJELLY_SERVER_ .* POLICY, PORT,"
        ):
            config.load(ServerOptions, environment=environment, prefix="MOONJELLY_SERVER_")
        del environment["MOONJELLY_SERVER_PROT"]
        assert config.load(ServerOptions, environment=environment, prefix="MOONJELLY_SERVER_") == ServerOptions()

    def test_the_environment_gives_lists_as_text(self) -> None:
        options = config.load(
            ServerOptions, environment={"MOONJELLY_SERVER_SPEEDS": "1,0.5"}, prefix="MOONJELLY_SERVER_"
        )
        assert [options.speed_of(device) for device in range(3)] == [1.0, 0.5, 1.0]

    @pytest.mark.parametrize(
        ("overrides", "text"),
        [
            ({"port": 70000}, "'port' = 70000: Input should be less than or equal to 65535"),
            ({"plan_budget_s": 1e300}, r"'plan_budget_s' = 1e\+300: Input should be less than or equal to 86400"),
            ({"grace_s": float("inf")}, "'grace_s' = inf: Input should be less than or equal to 86400"),
            ({"speeds": "0"}, r"'speeds.0' = '?0'?: Input should be greater than 0"),
            ({"dispatcher": "guess"}, "'dispatcher' = 'guess': allowed: edf-adaptive"),
            ({"tls_cert": "cert.pem"}, "tls_cert and tls_key go together"),
            ({"zoo": ()}, "zoo is empty; name one"),
            (
                {"answers": "a.json"},
                "answers are for simulated devices and the runtime is 'auto'; add runtime simulated",
            ),
            ({"answers": "b=a.json", "runtime": "simulated"}, "group 'b', which has no zoo; groups: default"),
            ({"answers": "a.json,b.json", "runtime": "simulated"}, "two answers for one group among a.json, b.json"),
        ],
    )
    def test_the_impossible_is_named(self, overrides: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            self.load(**overrides)


class Hurry(selectors.SelectSelector):
    """Under an event loop that only waits for the time: it is there at once."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


class Reluctant:
    """A child of one's own event loop that refuses to start as often as it is told to.

    Attributes:
        refusals: still to come.
        asked_s: when it was to start.
    """

    def __init__(self) -> None:
        self.refusals = 0
        self.asked_s: list[float] = []
        self.restarts = Restarts("a child", self.start)

    async def start(self) -> None:
        self.asked_s.append(asyncio.get_running_loop().time())
        if self.refusals:
            self.refusals -= 1
            raise StartError("no memory", 1)
        self.up.set()

    async def pauses_s(self, refusals: int, after_s: float) -> list[float]:
        """Die ``after_s`` after the last start, refuse to start, start in the end: how long was waited each time."""
        self.restarts.held()
        await asyncio.sleep(after_s)
        self.refusals, self.asked_s, self.up = refusals, [asyncio.get_running_loop().time()], asyncio.Event()
        self.restarts.again()
        await self.up.wait()
        return [after - before for before, after in pairwise(self.asked_s)]


def test_restarts_are_spaced_out_while_they_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        child = Reluctant()
        pauses = await child.pauses_s(refusals=9, after_s=100.0)
        assert pauses[:3] == pytest.approx([0.05, 0.1, 0.2]), "also when it had been up for long before"
        assert pauses[-2:] == pytest.approx([10.0, 10.0])
        assert await child.pauses_s(refusals=0, after_s=1.0) == pytest.approx([10.0]), "a second does not prove much"
        assert await child.pauses_s(refusals=0, after_s=60.0) == pytest.approx([0.05])

    hurry = Hurry()
    with contextlib.closing(asyncio.SelectorEventLoop(hurry)) as loop:
        monkeypatch.setattr(loop, "time", lambda: hurry.now_s)
        loop.run_until_complete(story())


def make_intake(kind: type[Intake], channel: Channel) -> Intake:
    return (
        DirectIntake(channel, lambda _: None) if kind is DirectIntake else PreparingIntake(channel, lambda _: None, 1)
    )


@pytest.mark.parametrize("kind", [DirectIntake, PreparingIntake])
def test_frames_that_come_together_are_taken_like_single_ones(kind: type[Intake]) -> None:
    ours, theirs = pair()
    end, channel = Channel(ours), Channel(theirs)
    with contextlib.closing(channel), contextlib.closing(make_intake(kind, channel)) as intake:
        end.send(SUBMIT)
        end.send(ipc.Submits((SUBMIT, SUBMIT)))
        taken: list[Any] = []
        while len(taken) < 3:
            taken += intake.take(20.0)
        assert [work.submit for work in taken] == [SUBMIT] * 3
        end.close()
        assert intake.take(20.0) == [Closed()]


def test_a_receiver_that_fails_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """A pool that takes no more work ends the process, but not without a word."""
    ours, theirs = pair()
    end, channel = Channel(ours), Channel(theirs)
    with contextlib.closing(end), contextlib.closing(channel):
        intake = PreparingIntake(channel, lambda submit: None, 1)
        intake.close()
        end.send(SUBMIT)
        assert intake.take(20.0) == [Closed()]
    assert "no more is read from the endpoint: RuntimeError" in caplog.text
