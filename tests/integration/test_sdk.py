from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import pytest

from moonjelly.errors import ConfigError, ConnectionLostError, FrameError, ProtocolError, SessionError
from moonjelly.on_hand import MOST
from moonjelly.rpc import serving_pb2 as pb
from moonjelly.sdk import AsyncClient, Client, ConnectionState, EncodedFrame, FrameResult, Withheld
from moonjelly.types import Outcome
from network_shaping.userspace import LinkSpec, UserspaceShaper
from tests.support.stub_server import StubServer, on_time, stub_server

PICTURE = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
SLO_MS = 20_000.0
"""Generous: what is tested is not speed."""
PATIENCE_S = 60.0


def target(server: StubServer) -> str:
    return f"127.0.0.1:{server.port}"


def client_of(server: StubServer, **options: object) -> AsyncClient:
    return AsyncClient(target(server), **{"slo_ms": SLO_MS, "fps": 10, **options})  # type: ignore[arg-type]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, at most ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.005)


def is_on_time(result: FrameResult) -> bool:
    return result.outcome is Outcome.ON_TIME


async def detect_until(
    client: AsyncClient, found: Callable[[FrameResult], bool] = is_on_time, what: str = "a frame is on time"
) -> list[FrameResult]:
    """Detect again and again; all results, the last one as asked for. On a busy host a client rightly skips frames."""
    results = [await client.detect(PICTURE)]
    deadline = time.monotonic() + PATIENCE_S
    while not found(results[-1]):
        assert time.monotonic() < deadline, f"never: {what}; the last one: {results[-1]}"
        await asyncio.sleep(0.005)
        results.append(await client.detect(PICTURE))
    return results


async def arrived(client: AsyncClient, server: StubServer) -> asyncio.Task[FrameResult]:
    """A frame that the server, which must hold its answer, has. One that was held up too long is sent again."""
    while True:
        running = asyncio.create_task(client.detect(PICTURE))
        await until(lambda task=running: server.frames or task.done(), "the frame arrives")  # type: ignore[misc]
        if server.frames:
            return running


def is_as_planned(result: FrameResult) -> bool:
    return is_on_time(result) and result.desired_variant == "net-96"


async def test_detect_answers_with_boxes_and_times() -> None:
    async with stub_server() as server, client_of(server) as client:
        results = await detect_until(client, is_as_planned, "a frame is sized as planned and on time")
    first, result = results[0], results[-1]
    assert first.desired_variant == "net-64", "an unknown link starts with the smallest variant"
    assert result.reason == ""
    np.testing.assert_allclose(result.detections.boxes, [[0.25, 0.25, 0.75, 0.5]])
    assert result.detections.classes.tolist() == [1]
    assert result.used_variant == "net-96"
    assert result.next_variant == "net-96"
    assert result.accuracy == pytest.approx(96 / 256)
    assert result.stages is not None
    assert result.stages.server_ms == pytest.approx(0.06)
    assert result.latency_ms is not None
    assert result.network_ms is not None
    assert 0 < result.network_ms < result.latency_ms
    assert client.statistics.captured == len(results)
    assert client.statistics.on_time == sum(map(is_on_time, results))
    assert server.byes, "the client said goodbye"


async def test_frames_are_sized_by_the_servers_latency_factor() -> None:
    """8 s of inference twice fit into the deadline of 20 s, three times they do not: then the smallest has to do."""
    async with stub_server() as server, client_of(server) as client:
        await detect_until(client, is_as_planned, "a frame is sized as planned and on time")
        for version, factor, size in ((2, 3.0, "net-64"), (3, 2.0, "net-96"), (4, 3.0, "net-64"), (5, 0.0, "net-96")):
            plan = pb.PlanUpdate(version=version, placed=True, variant=2, infer_ms=8000.0, latency_factor=factor)
            server.say(pb.ServerMessage(plan=plan))
            await detect_until(client, lambda one, size=size: one.desired_variant == size, f"{size} at {factor}")  # type: ignore[misc]


async def test_frames_carry_estimates_once_they_are_known() -> None:
    async with stub_server() as server, client_of(server) as client:
        results = await detect_until(client, is_as_planned, "a frame is sized as planned and on time")
        assert server.frames[0].bandwidth_bps == 0.0, "nothing is known yet"
        frame = server.frames[-1]
        assert frame.frame_id == results[-1].frame_id
        assert frame.bandwidth_bps > 0
        assert frame.rtt_ms > 0
        # one host, one clock: the true offset is 0 and must be within the bound
        assert abs(frame.offset.server_minus_client_ns) <= frame.offset.bound_ns
        assert (frame.width, frame.height) == (96, 96)
        assert client.link.known


async def test_results_iterate_in_order_until_the_client_closes() -> None:
    async with stub_server() as server:
        client = client_of(server)
        await client.connect()
        results = client.results()
        sent = [await client.detect(PICTURE) for _ in range(3)]
        skipped = client.skip(time.monotonic_ns(), "the camera was covered")
        await client.close()
        seen = [result async for result in results]
    assert [r.frame_id for r in seen] == [r.frame_id for r in sent] + [skipped.frame_id]
    assert seen[-1].outcome is Outcome.SKIPPED
    assert seen[-1].reason == "the camera was covered"


async def test_nobody_listens_is_told_in_time_and_by_name() -> None:
    for seconds in (0.3, 3.0, 30.0):  # a machine that stands still has no time to try
        client = AsyncClient("127.0.0.1:9", slo_ms=100, fps=10, register_timeout_s=seconds)
        with pytest.raises(
            ConnectionLostError, match=f"no server answered at 127.0.0.1:9 within {seconds:g} s"
        ) as told:
            await client.connect()
        assert client.state is ConnectionState.CLOSED
        if "refused" in str(told.value):
            return
    raise AssertionError(f"the cause is not named: {told.value}")


async def test_registration_never_waits_for_ever() -> None:
    async with stub_server(mute=True) as server:
        with pytest.raises(ConnectionLostError, match="no server answered at"):
            await client_of(server, register_timeout_s=0.3).connect()


async def test_a_server_that_is_far_away_is_reached() -> None:
    async with stub_server() as server:
        relay = UserspaceShaper(("127.0.0.1", server.port), [LinkSpec("far", None, delay_s=0.2)])
        (host, port), *_ = (await relay.start()).values()
        options = {"slo_ms": SLO_MS, "fps": 10, "register_timeout_s": PATIENCE_S}
        async with AsyncClient(f"{host}:{port}", **options) as client:  # type: ignore[arg-type]
            await detect_until(client)
        await relay.close()


async def test_garbage_instead_of_a_welcome() -> None:
    async with stub_server(garbage=True) as server:
        with pytest.raises(ProtocolError, match="bytes that are not a message"):
            await client_of(server).connect()


async def test_another_protocol_version() -> None:
    async with stub_server(protocol_version=9) as server:
        with pytest.raises(ProtocolError, match="protocol 9, this client 1; install the same release"):
            await client_of(server).connect()


async def test_access_token() -> None:
    async with stub_server(token="sesame") as server:
        with pytest.raises(SessionError, match="access token missing or wrong"):
            await client_of(server).connect()
        async with client_of(server, token="sesame") as client:
            assert (await client.detect(PICTURE)).outcome is Outcome.ON_TIME


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"slo_ms": 0}, "slo_ms = 0: it must be a positive number"),
        ({"fps": -1}, "fps = -1"),
        ({"fps": float("nan")}, "fps = nan"),
    ],
)
def test_impossible_options(options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        AsyncClient("localhost:1", **{"slo_ms": 100, "fps": 10, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["", "box", "box:", ":10001", "box:http", "box:0", "127.0.0.1:75537"])
def test_what_is_no_address_is_not_looked_for(target: str) -> None:
    with pytest.raises(ConfigError, match=f"'{target}' is no address of a server; give host:port"):
        AsyncClient(target, slo_ms=100, fps=10)


async def test_a_wrong_array_is_an_error_and_costs_nothing() -> None:
    async with stub_server() as server, client_of(server) as client:
        with pytest.raises(FrameError, match=r"RGB array .* got float64 \(4, 4, 3\)"):
            await client.detect(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
        assert client.statistics.captured == 0
        assert (await client.detect(PICTURE)).outcome is Outcome.ON_TIME


async def test_a_late_answer_is_late_by_the_clients_clock() -> None:
    hold = asyncio.Event()
    async with stub_server(hold_results=hold) as server, client_of(server, slo_ms=60) as client:
        while True:
            running = await arrived(client, server)
            captured_ns = server.frames[0].captured_client_ns
            await until(lambda since=captured_ns: time.monotonic_ns() - since > 61e6, "the deadline passes")  # type: ignore[misc]
            hold.set()
            result = await running
            if result.outcome is not Outcome.LOST:
                break
            hold.clear()  # the machine stood still for longer than an answer is waited for
            server.frames.clear()
    assert result.outcome is Outcome.LATE, "the server said ON_TIME"
    assert "ms late" in result.reason
    assert len(result.detections) == 1
    assert result.accuracy == 0.0
    assert client.statistics.miss_rate == 1.0


@pytest.mark.parametrize("outcome", ["DROPPED", "FAILED", "REJECTED"])
async def test_the_servers_refusals_keep_their_reason(outcome: str) -> None:
    def refuse(frame: pb.Frame) -> pb.Result:
        return pb.Result(frame_id=frame.frame_id, outcome=getattr(pb, f"OUTCOME_{outcome}"), reason="because")

    async with stub_server(answer=refuse) as server, client_of(server) as client:
        result = await client.detect(PICTURE)
    assert (result.outcome, result.reason, len(result.detections)) == (Outcome[outcome], "because", 0)


async def test_a_rejected_client_stays_and_is_placed_later() -> None:
    async with stub_server(placed=False) as server, client_of(server) as client:
        assert not client.plan.placed
        began = time.monotonic()
        for _ in range(4):
            result = await client.detect(PICTURE)
            assert (result.outcome, result.reason) == (Outcome.REJECTED, "no device holds its deadline")
        seconds = int(time.monotonic() - began)
        assert 1 <= len(server.frames) <= 1 + seconds, "one probe a second keeps the bandwidth known"
        assert client.link.known
        server.placed = True
        server.say(pb.ServerMessage(plan=server.plan(version=2)))
        await until(lambda: client.plan.placed, "the plan arrives")
        await detect_until(client)


async def test_an_oversized_frame_fails_and_the_next_one_passes() -> None:
    async with stub_server(max_frame_bytes=50_000) as server, client_of(server) as client:
        huge = await client.submit(EncodedFrame(bytes(50_001), 128, 128, 2, 90), time.monotonic_ns())
        assert (huge.outcome, huge.reason.split(":")[0]) == (
            Outcome.FAILED,
            "50001 bytes; the server takes at most 50000",
        )
        assert (await client.detect(PICTURE)).outcome is Outcome.ON_TIME


async def test_a_refused_frame_fails_alone() -> None:
    async with stub_server(answer=lambda frame: None) as server, client_of(server) as client:
        running = await arrived(client, server)
        server.say(
            pb.ServerMessage(
                error=pb.Error(code="INVALID_ARGUMENT", message="it came before", frame_id=server.frames[0].frame_id)
            )
        )
        result = await running
        assert (result.outcome, result.reason) == (Outcome.FAILED, "INVALID_ARGUMENT: it came before")
        server.answer = on_time
        await detect_until(client)


async def test_no_more_frames_in_flight_than_the_server_takes() -> None:
    hold = asyncio.Event()
    async with stub_server(hold_results=hold, max_outstanding=2) as server, client_of(server) as client:
        frame = EncodedFrame(b"\xff\xd8 jpeg", 64, 64, 0, 90)
        futures = [client.submit(frame, time.monotonic_ns()) for _ in range(3)]
        assert futures[2].done()
        assert futures[2].result().reason == "2 frames are unanswered already"
        hold.set()
        assert [(await future).outcome for future in futures[:2]] == [Outcome.ON_TIME, Outcome.ON_TIME]
        assert len(server.frames) == 2


async def test_connection_loss_and_resume() -> None:
    states: list[tuple[ConnectionState, str]] = []
    async with stub_server() as server:
        async with client_of(server, on_state=lambda state, why: states.append((state, why))) as client:
            session = client.session_id
            assert (await client.detect(PICTURE)).outcome is Outcome.ON_TIME
            await server.restart()
            await until(lambda: len(server.hellos) > 1 and client.state is ConnectionState.READY, "it resumes")
            results = await detect_until(client)
            assert client.session_id == session
            assert server.hellos[-1].resume_token == b"token-1"
            assert server.hellos[-1].bandwidth_bps > 0, "what it knew of the link is kept"
        assert [r.frame_id for r in results] == list(range(2, 2 + len(results)))
    assert [state for state, _ in states] == [
        ConnectionState.CONNECTING,
        ConnectionState.READY,
        ConnectionState.RECONNECTING,
        ConnectionState.READY,
        ConnectionState.CLOSED,
    ]
    assert client.statistics.reconnects == 1
    assert client.statistics.captured == 1 + len(results)


async def test_frames_in_flight_over_a_lost_link_are_lost_once() -> None:
    async with stub_server(answer=lambda frame: None) as server, client_of(server, slo_ms=500) as client:
        running = await arrived(client, server)
        await server.stop()
        result = await running
        assert result.outcome is Outcome.LOST
        # Where the machine stood still meanwhile, the time for an answer was over before the connection was.
        assert result.reason in ("the connection was lost", "no answer came")
        skipped = await client.detect(PICTURE)
        assert (skipped.outcome, skipped.reason) == (Outcome.SKIPPED, "no connection to the server")
        await server.start()
        await until(lambda: client.state is ConnectionState.READY, "it resumes")
        server.say(pb.ServerMessage(results=[on_time(server.frames[0])]))
        await until(lambda: client.statistics.stray_results == 1, "the stray is noticed")
    counts = client.statistics.outcomes
    assert counts[Outcome.LOST] == 1
    assert counts[Outcome.SKIPPED] >= 1
    assert counts[Outcome.LOST] + counts[Outcome.SKIPPED] == client.statistics.captured


async def test_a_frame_waits_for_the_connection_while_it_has_time() -> None:
    async with stub_server() as server, client_of(server) as client:
        await detect_until(client)
        await server.stop()
        await until(lambda: client.state is ConnectionState.RECONNECTING, "the loss is noticed")
        waiting = asyncio.create_task(client.detect(PICTURE))
        await asyncio.sleep(0)
        assert isinstance(client.choose(), Withheld), "now it cannot be sent"
        await server.start()
        result = await waiting
        assert is_on_time(result)
        assert client.state is ConnectionState.READY


async def test_a_frame_that_waits_in_vain_ends_at_its_deadline() -> None:
    async with stub_server() as server, client_of(server, slo_ms=200) as client:
        await server.stop()
        await until(lambda: client.state is ConnectionState.RECONNECTING, "the loss is noticed")
        result = await client.detect(PICTURE)
        assert (result.outcome, result.reason) == (Outcome.SKIPPED, "no connection to the server")
        await server.start()
    assert client.statistics.captured == 1


async def test_at_most_a_few_frames_wait() -> None:
    async with stub_server() as server, client_of(server) as client:
        await server.stop()
        await until(lambda: client.state is ConnectionState.RECONNECTING, "the loss is noticed")
        waiting = [asyncio.create_task(client.detect(PICTURE)) for _ in range(MOST + 1)]
        assert (await waiting[0]).outcome is Outcome.SKIPPED, "the oldest makes room"
        await server.start()
        await asyncio.gather(*waiting)
    assert client.statistics.captured == MOST + 1


async def test_frames_that_wait_end_when_the_client_closes() -> None:
    async with stub_server() as server, client_of(server, slo_ms=1e9) as client:  # none of them ends by itself
        await server.stop()
        await until(lambda: client.state is ConnectionState.RECONNECTING, "the loss is noticed")
        waiting = [asyncio.create_task(client.detect(PICTURE)) for _ in range(MOST)]
        await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*waiting)
        await server.start()
    assert {(result.outcome, result.reason) for result in results} == {(Outcome.SKIPPED, "no connection to the server")}
    assert client.statistics.captured == MOST


async def test_a_frame_at_the_encoder_when_the_client_closes_is_an_error_and_no_cancellation() -> None:
    async with stub_server() as server:
        client = client_of(server)
        await client.connect()
        large = np.zeros((4000, 4000, 3), np.uint8)
        begun = [asyncio.create_task(client.detect(large)) for _ in range(4)]
        await asyncio.sleep(0)
        await client.close()
        for ended in await asyncio.gather(*begun, return_exceptions=True):
            assert isinstance(ended, (FrameResult, ConnectionLostError)), ended


async def test_an_answer_over_the_resumed_connection_counts() -> None:
    async with stub_server(answer=lambda frame: None) as server, client_of(server) as client:
        running = await arrived(client, server)
        await server.restart()
        await until(lambda: len(server.hellos) > 1 and client.state is ConnectionState.READY, "it resumes")
        server.say(pb.ServerMessage(results=[on_time(server.frames[0])]))
        assert (await running).outcome is Outcome.ON_TIME


async def test_a_forgotten_session_registers_anew_and_its_frames_are_lost() -> None:
    async with stub_server(answer=lambda frame: None) as server, client_of(server) as client:
        running = await arrived(client, server)
        server.forgets, server.answer = True, on_time
        await server.restart()
        result = await running
        assert (result.outcome, result.reason) == (Outcome.LOST, "its session was gone")
        await until(lambda: client.state is ConnectionState.READY, "it registers")
        assert client.session_id > 1
        await detect_until(client)


async def test_a_silent_stream_is_given_up_and_replaced() -> None:
    async with stub_server() as server, client_of(server) as client:
        assert (await client.detect(PICTURE)).outcome is Outcome.ON_TIME
        server.mute = True
        await until(lambda: client.state is ConnectionState.RECONNECTING, "the watchdog barks")
        server.mute = False
        await until(lambda: client.state is ConnectionState.READY, "it resumes")
        assert server.hellos[-1].resume_token


async def test_garbage_in_mid_stream_costs_the_connection_only() -> None:
    async with stub_server() as server, client_of(server) as client:
        await client.detect(PICTURE)
        for garbage in (
            b"\x00\xff\xff\xff",
            pb.ServerMessage(results=[pb.Result(frame_id=1, outcome=99)]).SerializeToString(),
            pb.ServerMessage(plan=pb.PlanUpdate(version=3, placed=True, variant=77)).SerializeToString(),
        ):
            before = client.statistics.reconnects
            for outbox in server.streams:
                outbox.put_nowait(garbage)
            await until(lambda before=before: client.statistics.reconnects > before, "it resumes")  # type: ignore[misc]
        await detect_until(client)


async def test_a_message_that_is_partly_wrong_has_no_effect_at_all() -> None:
    async with stub_server(answer=lambda frame: None) as server, client_of(server, slo_ms=500) as client:
        running = await arrived(client, server)
        wrong = on_time(server.frames[0])
        wrong.next_variant = 77
        server.say(pb.ServerMessage(results=[on_time(server.frames[0]), wrong]))
        result = await running
        assert result.outcome is Outcome.LOST, "its answer came in a message that could not be trusted"
        assert client.statistics.outcomes[Outcome.LOST] == 1


async def test_drain_stops_new_frames_and_finishes_old_ones() -> None:
    hold = asyncio.Event()
    async with stub_server(hold_results=hold) as server, client_of(server) as client:
        running = await arrived(client, server)
        server.say(pb.ServerMessage(drain=pb.Drain(grace_s=5, reason="new release")))
        await until(lambda: client.state is ConnectionState.DRAINING, "the notice arrives")
        refused = await client.detect(PICTURE)
        assert (refused.outcome, refused.reason) == (Outcome.SKIPPED, "the server drains: new release")
        hold.set()
        assert (await running).outcome is Outcome.ON_TIME
        server.end_streams()
        await until(lambda: client.state is ConnectionState.READY, "it reconnects")


async def test_a_server_that_does_not_come_back() -> None:
    async with stub_server() as server:
        client = client_of(server, reconnect_s=0.2)
        await client.connect()
        await server.stop()
        await until(lambda: client.state is ConnectionState.CLOSED, "it gives up")
        with pytest.raises(ConnectionLostError, match="is closed"):
            await client.detect(PICTURE)
        await client.close()
        await server.start()


async def test_closing_waits_for_answers_that_are_due_and_ends_the_rest() -> None:
    async with stub_server(answer=lambda frame: None) as server:
        client = client_of(server)
        await client.connect()
        future = client.submit(EncodedFrame(b"\xff\xd8 jpeg", 64, 64, 0, 90), time.monotonic_ns())
        await until(lambda: server.frames, "the frame arrives")
        await client.close()
        await client.close()
    assert future.result().outcome is Outcome.LOST
    assert client.statistics.captured == 1


def test_the_synchronous_client() -> None:
    async def serve(ready: asyncio.Future[int], done: asyncio.Event) -> None:
        async with stub_server() as server:
            ready.set_result(server.port)
            await done.wait()

    async def main() -> list[FrameResult]:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[int] = loop.create_future()
        done = asyncio.Event()
        server = asyncio.create_task(serve(ready, done))
        try:
            return await asyncio.to_thread(use, await ready)
        finally:
            done.set()
            await server

    def use(port: int) -> list[FrameResult]:
        with Client(f"127.0.0.1:{port}", slo_ms=SLO_MS, fps=10) as client:
            assert client.plan.placed
            assert client.state is ConnectionState.READY
            assert client.zoo.classes == ("person", "car")
            client.choose()
            results = [client.detect(PICTURE)]
            future = client.submit(EncodedFrame(b"\xff\xd8 jpeg", 64, 64, 0, 90), time.monotonic_ns())
            results += [future.result(), client.skip(time.monotonic_ns(), "why not")]
            results.append(client.withhold(Withheld(Outcome.SKIPPED, "not now"), time.monotonic_ns()))
            assert client.link.rtt_ms > 0.0
            assert client.session_id > 0
            assert client.statistics.captured == 4
        with pytest.raises(ConnectionLostError, match="is closed"):
            client.detect(PICTURE)
        with pytest.raises(ConnectionLostError, match="is closed"):
            client.submit(EncodedFrame(b"\xff\xd8 jpeg", 64, 64, 0, 90), time.monotonic_ns()).result()
        assert client.statistics.captured == 4
        assert client.link.known
        return results

    outcomes = [result.outcome for result in asyncio.run(main())]
    assert outcomes == [Outcome.ON_TIME, Outcome.ON_TIME, Outcome.SKIPPED, Outcome.SKIPPED]


def test_the_synchronous_client_raises_what_the_other_does() -> None:
    with pytest.raises(ConfigError, match="fps = 0"):
        Client("localhost:1", slo_ms=100, fps=0)
    with (
        pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:9"),
        Client("127.0.0.1:9", slo_ms=100, fps=10, register_timeout_s=0.2),
    ):
        pass
