"""The gRPC side: one bidirectional stream per client, raw bytes in and out.

A stream costs two coroutines for its whole life, and no task per frame: one reads and hands events to the driver, the
other writes whatever has gathered in the stream's outbox. A client that stops reading fills its outbox, and is cut off
before that costs anybody else anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from moonjelly.errors import MoonjellyError, ProtocolError
from moonjelly.rpc import client_wire, messages, server_wire
from moonjelly.units import ServerInstant
from server.core import events as ev

SERVICE = "moonjelly.v1.Serving"
METHOD = "Stream"
TOKEN_BYTES = 16
MAX_WAITING_ITEMS = 1024
"""Acks, results and the like that may wait for one client to read them."""
ACK_LINGER_S = 0.001
"""An acknowledgement waits this long for something to travel with. It carries when its frame was received and when
itself was sent, so that no measurement sees the wait."""
HELLO_PATIENCE_S = 10.0
_MAX_BATCHED = 256
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
_BROKEN = (grpc.aio.BaseError, grpc.RpcError)
"""What reading and writing raise when the client has gone."""
_log = logging.getLogger(__name__)

Emit = Callable[[ev.Event], None]


class Outbox:
    """What waits to be written on one stream."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: list[ev.Item] = []
        self._wake: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._urgent = False
        self._ending = False
        self.overrun = self._loop.create_future()

    def put(self, item: ev.Item) -> None:
        """Add to the next message."""
        if len(self._items) >= MAX_WAITING_ITEMS:
            if not self.overrun.done():
                self.overrun.set_result(None)
            return
        self._items.append(item)
        if not isinstance(item, messages.Ack):
            self._urgent = True
            self._notify()
        elif self._linger is None:
            self._linger = self._loop.call_later(ACK_LINGER_S, self._lingered)

    def end(self) -> None:
        """No more will come."""
        self._ending = True
        self._notify()

    async def take(self) -> list[ev.Item]:
        """What has gathered; waits for something. Empty: it is the end."""
        if not (self._urgent or self._ending) and (self._linger is not None or not self._items):
            self._wake = self._loop.create_future()
            await self._wake
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if len(self._items) <= _MAX_BATCHED:
            items, self._items, self._urgent = self._items, [], False
        else:
            items, self._items = self._items[:_MAX_BATCHED], self._items[_MAX_BATCHED:]
        return items

    def _lingered(self) -> None:
        self._linger = None
        if self._items:
            self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Endpoint:
    """Streams of all clients.

    Args:
        emit: hands an event to the driver, which may put items into outboxes before it returns.
        token: that clients must present; empty: none.
    """

    def __init__(self, emit: Emit, token: str) -> None:
        self._emit = emit
        self._authorization = f"Bearer {token}".encode() if token else b""
        self._outboxes: dict[int, Outbox] = {}
        self._silent: set[int] = set()
        self._stopping = ""
        self._last_stream = 0
        self._emptied = asyncio.Event()
        self._writers: set[asyncio.Task[None]] = set()

    def send(self, stream: int, item: ev.Item) -> None:
        """Write ``item`` as soon as possible; a stream that has ended is no error."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.put(item)

    def end(self, stream: int) -> None:
        """End a stream after what was sent."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.end()

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._outboxes)

    def refuse_silent(self, reason: str) -> None:
        """End the streams that have not said hello, now and from now on: a server that stops waits for no hello."""
        self._stopping = reason
        for stream in tuple(self._silent):
            self._refuse(stream)

    def _refuse(self, stream: int) -> None:
        self._emit(ev.MessageRefused(stream, "UNAVAILABLE", self._stopping))

    async def empty(self) -> None:
        """Wait until no stream is open."""
        self._emptied.clear()
        if self._outboxes:
            await self._emptied.wait()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """To register with a server."""
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: stream})

    async def _stream(self, _: Any, context: Any) -> None:
        if self._authorization and not self._authorized(context):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "this server wants a token: 'authorization: Bearer TOKEN'"
            )
        self._last_stream += 1
        stream = self._last_stream
        outbox = self._outboxes[stream] = Outbox()
        self._silent.add(stream)
        if self._stopping:
            self._refuse(stream)
        reader = asyncio.ensure_future(self._read(stream, context))
        writer = asyncio.ensure_future(self._write(outbox, context))
        self._writers.add(writer)
        writer.add_done_callback(self._writers.discard)
        try:
            await asyncio.wait((writer, outbox.overrun), return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._outboxes[stream]
            self._silent.discard(stream)
            if not self._outboxes:
                self._emptied.set()
            reader.cancel()
            outbox.end()  # the writer ends by itself: what it has begun to write cannot be taken back
            self._emit(ev.StreamClosed(stream))
        if writer.done():
            return
        text = f"the client does not read: {MAX_WAITING_ITEMS} messages wait for it"
        _log.warning("stream %d is cut off: %s", stream, text)
        with contextlib.suppress(grpc.aio.InternalError):  # it has gone meanwhile
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _authorized(self, context: Any) -> bool:
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                given = value if isinstance(value, bytes) else value.encode()
                return hmac.compare_digest(given, self._authorization)
        return False

    async def _read(self, stream: int, context: Any) -> None:
        """Events of one stream, until the client half-closes it or it breaks."""
        try:
            first = await asyncio.wait_for(context.read(), HELLO_PATIENCE_S)
            if stream not in self._outboxes:
                return  # it was closed meanwhile: wait_for hands over a result that came with the cancellation
            self._silent.discard(stream)
            if first is not _EOF:
                self._hello(stream, first)
                await self._read_on(stream, context.read)
        except asyncio.TimeoutError:
            text = f"no hello within {HELLO_PATIENCE_S:g} s"
            self._emit(ev.MessageRefused(stream, "DEADLINE_EXCEEDED", text))
            return
        except MoonjellyError as fault:
            self._emit(ev.MessageRefused(stream, fault.wire_code, str(fault)))
            return
        except _BROKEN:
            _log.debug("stream %d broke while reading", stream)
        self._emit(ev.InputEnded(stream))

    def _hello(self, stream: int, data: bytes) -> None:
        message = client_wire.read(data)
        if not isinstance(message, messages.Hello):
            raise ProtocolError(f"the first message must be a hello, not a {type(message).__name__.lower()}")
        self._emit(ev.Joined(stream, message, secrets.token_bytes(TOKEN_BYTES)))

    async def _read_on(self, stream: int, read: Callable[[], Awaitable[Any]]) -> None:
        emit, decode, now = self._emit, client_wire.read, time.monotonic_ns
        while (data := await read()) is not _EOF:
            received_ns = now()
            message = decode(data)
            if isinstance(message, messages.Frame):
                emit(ev.FrameReceived(stream, message, received_ns))
            elif isinstance(message, messages.Ping):
                emit(ev.PingReceived(stream, message, received_ns))
            elif isinstance(message, messages.Bye):
                emit(ev.ByeReceived(stream))
            else:
                raise ProtocolError("a second hello on one stream; open another stream for another session")

    async def _write(self, outbox: Outbox, context: Any) -> None:
        """Whatever has gathered, in one message, again and again."""
        take, write, now = outbox.take, context.write, time.monotonic_ns
        try:
            while items := await take():
                for message in gather(items):
                    await write(server_wire.write(message, ServerInstant(now())))
        except _BROKEN as fault:
            _log.debug("a stream broke while writing: %s", fault)


def gather(items: list[ev.Item]) -> Iterator[messages.ServerMessage]:
    """Items in the order of their sending, in as few messages as possible; of several plans in one, the last.

    A message holds one error, so each further error begins another message: none of them may be lost.
    """
    start = 0
    for end, item in enumerate(items, start=1):
        if isinstance(item, messages.StreamError):
            yield _message(items[start:end])
            start = end
    if start < len(items):
        yield _message(items[start:])


def _message(items: list[ev.Item]) -> messages.ServerMessage:
    acks: list[messages.Ack] = []
    results: list[messages.Result] = []
    pongs: list[messages.Pong] = []
    single: dict[str, Any] = {}
    for item in items:
        if isinstance(item, messages.Result):
            results.append(item)
        elif isinstance(item, messages.Ack):
            acks.append(item)
        elif isinstance(item, messages.Pong):
            pongs.append(item)
        else:
            single[_FIELDS[type(item)]] = item
    return messages.ServerMessage(acks=tuple(acks), results=tuple(results), pongs=tuple(pongs), **single)


_FIELDS: dict[type, str] = {
    messages.Welcome: "welcome",
    messages.PlanUpdate: "plan",
    messages.Drain: "drain",
    messages.StreamError: "error",
}
