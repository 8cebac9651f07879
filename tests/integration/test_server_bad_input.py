"""What a client does wrong costs that client, in words, and nobody else a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from moonjelly.rpc import messages
from moonjelly.types import Outcome
from tests.support.serving import (
    Server,
    WireClient,
    connected,
    frame_of,
    hello,
    jpeg,
    running_server,
    welcomed,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")  # grpc.aio's poller outlives the loop of one test
PICTURE = jpeg(64)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two simulated devices; pictures of at most 1 Mi pixels, frames of at most 64 KiB."""
    with running_server(
        tmp_path_factory.mktemp("server"), "--max-pixels", "1048576", "--max-frame-bytes", "65536", devices=2
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def witness(server: Server) -> object:
    """Another client, which sends frames all the while; every one of them must be answered on time."""
    outcomes: list[Outcome] = []
    over = asyncio.Event()

    async def stream() -> None:
        async with welcomed(server.port, name="witness") as client:
            frame_id = 0
            await client.placed()
            while not over.is_set() or frame_id < 5:
                frame_id += 1
                await client.frame(frame_id, PICTURE)
                outcomes.append((await client.result(frame_id)).outcome)

    task = asyncio.ensure_future(stream())
    yield
    over.set()
    await task
    assert len(outcomes) >= 5
    assert set(outcomes) == {Outcome.ON_TIME}


@pytest.mark.usefixtures("witness")
class TestBadInput:
    async def broken(self, client: WireClient, data: bytes, **changes: object) -> str:
        await client.frame(1, data, **changes)
        result = await client.result(1)
        assert result.outcome is Outcome.FAILED
        assert len(result.detections) == 0
        await client.frame(2, PICTURE)
        assert (await client.result(2)).outcome is Outcome.ON_TIME
        return result.reason

    async def test_no_jpeg(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            reason = await self.broken(client, b"not a picture")
        assert reason.startswith("frame of 13 bytes is no readable JPEG")

    async def test_an_empty_frame(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            assert "no readable JPEG" in await self.broken(client, b"")

    async def test_too_many_pixels(self, server: Server) -> None:
        bomb = bytearray(jpeg(64))
        start = bomb.index(b"\xff\xc0")
        bomb[start + 5 : start + 9] = (8000).to_bytes(2, "big") * 2
        async with welcomed(server.port) as client:
            await client.placed()
            reason = await self.broken(client, bytes(bomb), width=8000, height=8000)
        assert reason == "frame is 8000 x 8000; at most 8192 a side and 1048576 pixels are allowed"

    async def test_other_dimensions_than_announced(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            reason = await self.broken(client, PICTURE, width=640, height=480)
        assert reason.startswith("frame 1 was announced as 640x480 but its picture is 64x64")

    async def test_an_unknown_variant(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            assert await self.broken(client, PICTURE, variant=99) == "unknown variant 99; the zoo has 0 to 3"

    async def test_a_frame_larger_than_the_limit(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(1, PICTURE.ljust(70_000, b"\0"))
            error = await client.error()
            assert (error.code, error.frame_id, error.fatal) == ("RESOURCE_EXHAUSTED", 1, False)
            assert error.message == "frame of 70000 bytes; at most 65536 are accepted"
            await client.frame(2, PICTURE)
            assert (await client.result(2)).outcome is Outcome.ON_TIME

    async def test_a_message_far_beyond_the_limit_ends_the_stream(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.frame(1, bytes(10 << 20))
            while await client.read() is not None:
                pass
            code, details = await client.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in details

    async def test_duplicate_and_reordered_ids(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(5, PICTURE)
            for wrong in (5, 4):
                await client.frame(wrong, PICTURE)
                error = await client.error()
                assert error.frame_id == wrong
                assert error.message == f"frame id {wrong} after 5: ids start at 1 and increase"
            await client.frame(6, PICTURE)
            assert (await client.result(6)).outcome is Outcome.ON_TIME
            assert (await client.result(5)).outcome is Outcome.ON_TIME
            assert sum(len(message.results) for message in client.received) == 2

    async def test_a_frame_before_hello(self, server: Server) -> None:
        async with connected(server.port) as client:
            await client.frame(1, PICTURE)
            error = await client.error()
            assert error.fatal
            assert error.message == "the first message must be a hello, not a frame"
            assert await client.read() is None

    async def test_a_frame_after_goodbye(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(1, PICTURE)
            await client.send(messages.Bye())
            await client.frame(2, PICTURE)
            assert (await client.result(1)).outcome is Outcome.ON_TIME
            while await client.read() is not None:
                pass
            assert (await client.status())[0] is grpc.StatusCode.OK
            assert not [result for message in client.received for result in message.results if result.frame_id == 2]

    async def test_an_unknown_session(self, server: Server) -> None:
        async with connected(server.port) as client:
            await client.send(hello(resume_token=b"0123456789abcdef"))
            error = await client.error()
            assert (error.code, error.fatal) == ("UNAUTHENTICATED", True)
            assert error.message.startswith("the resume token is unknown")

    async def test_garbage(self, server: Server) -> None:
        async with connected(server.port) as client:
            await client.send_bytes(b"\xff" * 40)
            error = await client.error()
            assert error.message == "40 bytes that are no message of protocol 1"
            assert await client.read() is None

    async def test_garbage_in_the_middle_ends_the_stream_and_the_session_can_be_resumed(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.send_bytes(b"\xff" * 40)
            assert (await client.error()).fatal
            welcome = client.welcome
        assert welcome is not None
        async with welcomed(server.port, resume_token=welcome.token) as again:
            assert again.welcome is not None
            assert again.welcome.resumed
            assert again.welcome.session_id == welcome.session_id

    async def test_a_second_hello(self, server: Server) -> None:
        async with welcomed(server.port) as client:
            await client.send(hello())
            assert (await client.error()).message.startswith("a second hello on one stream")

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"slo_ms": -1.0}, "slo_ms is -1.0; it must be in (0, 60000]"),
            ({"fps": 0.0}, "fps is 0.0; it must be in (0, 1000]"),
            ({"group": "boats"}, "model group 'boats' is unknown; this server has default"),
            ({"bandwidth_bps": float("nan")}, "bandwidth_bps is nan; it must be finite and not negative (0: unknown)"),
        ],
    )
    async def test_an_impossible_hello(self, server: Server, changes: dict[str, object], text: str) -> None:
        async with connected(server.port) as client:
            await client.send(hello(**changes))
            error = await client.error()
            assert error.fatal
            assert error.message == text

    async def test_a_client_that_stops_reading_is_cut_off(self, server: Server) -> None:
        async with welcomed(server.port) as client:

            async def ping_for_ever() -> None:
                while True:
                    await client.send(messages.Ping(frame_of(1, b"").captured_ns))

            pings = asyncio.ensure_future(ping_for_ever())
            while "is cut off" not in server.errors():
                assert not pings.done() or "is cut off" in server.errors()
                await asyncio.sleep(0.02)
            while await client.read() is not None:
                pass
            assert (await client.status())[0] is not grpc.StatusCode.OK
            await asyncio.gather(pings, return_exceptions=True)
        assert "is cut off: the client does not read: 1024 messages wait for it" in server.errors()


async def test_a_server_with_a_token_wants_it(tmp_path: Path) -> None:
    with running_server(tmp_path, "--token", "secret") as server:
        async with connected(server.port, token="wrong") as client:
            assert await client.read() is None
            code, details = await client.status()
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert details == "this server wants a token: 'authorization: Bearer TOKEN'"
        async with connected(server.port, token="secret") as client:
            await client.send(hello())
            assert await client.until(lambda message: message.welcome)
