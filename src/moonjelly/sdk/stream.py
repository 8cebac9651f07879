"""One attempt at the native stream: a channel of its own, one call on it, messages in and out.

After a network change or an outage an old channel may take many seconds to notice and holds bytes that cannot be
called back, so every attempt opens a new one with its own subchannel pool and nothing is shared with the last.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from moonjelly.errors import ConfigError, ConnectionLostError, MoonjellyError, SessionError
from moonjelly.rpc import client_wire, server_wire
from moonjelly.rpc.messages import STREAM_METHOD, ClientMessage, ServerMessage
from moonjelly.sdk import sockets

MAX_RECEIVE_BYTES = 16 * 1024 * 1024
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
)
LEAST_CONNECT_S = 0.1
"""Of a link that is not far, unless the caller has more time: packets of a new socket into an outage may be lost."""
_REFUSED: dict[str, type[MoonjellyError]] = {
    "UNAUTHENTICATED": SessionError,
    "PERMISSION_DENIED": SessionError,
    "INVALID_ARGUMENT": ConfigError,
    "UNIMPLEMENTED": ConfigError,
}
"""Statuses that trying again does not cure."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to connect.

    Attributes:
        address: ``host:port`` or any gRPC target.
        token: the server's access token; empty: none.
        root_certificates: PEM of the authority that signed the server's certificate; ``None``: no TLS.
        congestion_control: of TCP; empty: the host's.
    """

    address: str
    token: str = ""
    root_certificates: bytes | None = None
    congestion_control: str = ""


class Stream:
    """One call. Reading and writing are each done by one task at a time; cancelling either ends the call.

    Args:
        target: the server.
        connect_s: how long the connection may take to open, TLS and HTTP/2's settings included; at least
            :data:`LEAST_CONNECT_S`.
    """

    def __init__(self, target: Target, connect_s: float) -> None:
        self._target = target
        self._others = sockets.names()
        self._own: str | None = None
        # The least pause between two attempts of a channel is also how long it waits for the first.
        options = (*_OPTIONS, ("grpc.min_reconnect_backoff_ms", round(1e3 * max(connect_s, LEAST_CONNECT_S))))
        if target.root_certificates is None:
            self._channel = grpc.aio.insecure_channel(target.address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(root_certificates=target.root_certificates)
            self._channel = grpc.aio.secure_channel(target.address, credentials, options=options)
        # Raw bytes both ways: a message that cannot be read is then ours to report, with its text.
        open_stream: Any = self._channel.stream_stream
        metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
        self._call: Any = open_stream(STREAM_METHOD)(metadata=metadata)

    async def write(self, message: ClientMessage) -> None:
        """Hand one message to the transport; waits while flow control holds it back.

        Raises:
            ConnectionLostError: the stream has ended.
        """
        try:
            await self._call.write(client_wire.write(message))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as fault:
            raise await self._explain(fault) from None

    async def read(self) -> ServerMessage | None:
        """The next message, ``None`` when the server ended the stream in order.

        Raises:
            ConnectionLostError: the stream broke.
            SessionError, ConfigError: the server refused, and would again.
            ProtocolError: the server sent what the wire does not allow.
        """
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as fault:
            raise await self._explain(fault) from None
        if not isinstance(data, bytes):
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise await self._status()
            return None
        return server_wire.read(data)

    async def finish(self) -> None:
        """Say that nothing more will be written.

        Raises:
            ConnectionLostError: the stream has ended.
        """
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as fault:
            raise await self._explain(fault) from None

    async def find_connection(self) -> None:
        """Look which of this process's connections is the stream's, once the server has said something on it.

        It is the one that was not there before; where another client has opened one meanwhile, none is taken for it.
        """
        with contextlib.suppress(OSError, UnicodeError):  # no Linux, or a target of another kind than host:port
            peers = await sockets.peers_of(self._target.address)
            new = [name for name, _ in sockets.to(peers) if name not in self._others]
            self._own = new[0] if len(new) == 1 else None

    def abandon(self) -> None:
        """Let :meth:`close` drop what still waits in the connection; TCP would send it into the next one's way."""
        if self._own is not None:
            with contextlib.suppress(OSError):  # this process has no descriptor left to look with
                sockets.reset_on_close(self._own)

    async def close(self) -> None:
        """End the call and its channel. Idempotent."""
        await self._channel.close(grace=None)

    async def _status(self) -> MoonjellyError:
        code = await self._call.code()
        return fault_of(self._target.address, code.name, await self._call.details())

    async def _explain(self, fault: Exception) -> Exception:
        if isinstance(fault, grpc.aio.AioRpcError):
            return fault_of(self._target.address, fault.code().name, fault.details())
        if self._call.done():
            return await self._status()
        return ConnectionLostError(f"the stream to {self._target.address} has ended")


def fault_of(address: str, code: str, details: str | None) -> MoonjellyError:
    """The error that stands for a status of the stream, or for an error message on it.

    Args:
        address: of the server.
        code: name of a gRPC status code.
        details: in words.
    """
    text = f"{address}: {code}{': ' + details if details else ''}"
    return _REFUSED.get(code, ConnectionLostError)(text)
