"""The connections of this process, found among its descriptors."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moonjelly.sdk import AsyncClient, ConnectionState, sockets
from network_shaping.userspace import LinkSpec, UserspaceShaper
from tests.support.stub_server import StubServer, stub_server

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists a process's descriptors")
LOOK_S, LOOKS = 0.005, 12_000
"""How often, and how often at most, a state is looked at: a machine that stands still costs one look."""
ATTEMPTS = 20
RESET = "the client has reset its connection"


def names_to(port: int) -> list[str]:
    return [name for name, _ in sockets.to({("127.0.0.1", port)})]


def test_one_connection_alone_ends_with_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        ours = socket.create_connection(address)
        (name,) = names_to(address[1])
        other = socket.create_connection(address)
        assert len(names_to(address[1])) == 2
        assert sockets.names() >= set(names_to(address[1]))
        sockets.reset_on_close(name)
        ours.close()
        other.close()
        first, second = server.accept()[0], server.accept()[0]
        with first, second:
            with pytest.raises(ConnectionResetError):
                first.recv(1)
            assert second.recv(1) == b""


def test_a_connection_that_is_closed_already_is_no_error() -> None:
    sockets.reset_on_close("socket:[0]")


@pytest.fixture
def kept_garbage() -> Iterator[None]:
    """What only the collector of reference cycles would free stays."""
    gc.disable()
    yield
    gc.enable()


async def come(condition: Callable[[], bool], otherwise: str) -> None:
    for _ in range(LOOKS):
        if condition():
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(otherwise)


async def given_up_and_resumed(client: AsyncClient, server: StubServer) -> None:
    server.mute = True
    await come(lambda: client.state is ConnectionState.RECONNECTING, "it is not given up")
    server.mute = False
    await come(lambda: client.state is ConnectionState.READY, "it is not resumed")


@pytest.mark.usefixtures("kept_garbage")
async def test_a_connection_that_was_given_up_is_closed() -> None:
    async with (
        stub_server() as server,
        AsyncClient(f"127.0.0.1:{server.port}", slo_ms=20_000, fps=10) as client,
    ):
        await given_up_and_resumed(client, server)
        await come(lambda: len(names_to(server.port)) == 1, "an old connection stays open")


async def test_a_silent_connection_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with stub_server() as server:
        relay = UserspaceShaper(("127.0.0.1", server.port), [LinkSpec("a", None)])
        (host, port), *_ = (await relay.start()).values()
        async with AsyncClient(f"{host}:{port}", slo_ms=20_000, fps=10) as client:
            for _ in range(ATTEMPTS):
                await given_up_and_resumed(client, server)
                if RESET in caplog.text:
                    break  # else the client had no time yet to look which connection is its own
        await relay.close()
    assert RESET in caplog.text
