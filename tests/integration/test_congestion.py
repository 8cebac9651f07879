from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from moonjelly.sdk import AsyncClient, congestion, sockets
from tests.support.stub_server import stub_server

SETTINGS = Path("/proc/sys/net/ipv4")
pytestmark = pytest.mark.skipif(not SETTINGS.exists(), reason="TCP's congestion control is chosen on Linux")


def another() -> str:
    """An algorithm that any user may choose and that is not the default, where the system has one."""
    usual = (SETTINGS / "tcp_congestion_control").read_text().strip()
    allowed = (SETTINGS / "tcp_allowed_congestion_control").read_text().split()
    return next((name for name in allowed if name != usual), usual)


def chosen(connection: socket.socket) -> str:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).partition(b"\0")[0].decode()


def chosen_for(port: int) -> list[str]:
    """On this process's connections to a port."""
    found = []
    for _, connection in sockets.connections():
        with connection, contextlib.suppress(OSError):  # those that listen have no peer
            if connection.getpeername()[1] == port:
                found.append(chosen(connection))
    return found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_only_connections_to_the_peer_change(listener: socket.socket) -> None:
    address = listener.getsockname()
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        socket.create_connection(address) as ours,
        socket.create_connection(elsewhere.getsockname()) as other,
    ):
        usual = chosen(other)
        assert congestion.choose(another(), {address}) == 1
        assert (chosen(ours), chosen(other)) == (another(), usual)
        assert ours.getpeername() == address  # it is still open


def test_an_ipv4_peer_of_an_ipv6_socket_is_found(listener: socket.socket) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets on this host")
    host, port = listener.getsockname()
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as ours:
        ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.connect((f"::ffff:{host}", port))
        assert congestion.choose(another(), {(host, port)}) == 1
        assert chosen(ours) == another()


def test_what_the_system_does_not_have_is_an_error(listener: socket.socket) -> None:
    address = listener.getsockname()
    with socket.create_connection(address) as ours:
        usual = chosen(ours)
        with pytest.raises(OSError, match="No such file"):
            congestion.choose("none-such", {address})
        assert chosen(ours) == usual


async def test_a_client_chooses_for_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        stub_server() as server,
        AsyncClient(f"localhost:{server.port}", slo_ms=20_000, fps=10, congestion_control=another()),
    ):
        assert chosen_for(server.port) == [another()]
    assert not caplog.records


async def test_a_client_goes_on_where_it_may_not_choose(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        stub_server() as server,
        AsyncClient(f"127.0.0.1:{server.port}", slo_ms=20_000, fps=10, congestion_control="none-such") as client,
    ):
        assert client.session_id
    assert "'none-such' cannot be chosen" in caplog.text
