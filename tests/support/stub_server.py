"""A real gRPC server that speaks the native protocol minimally, with faults on demand, for tests of the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from moonjelly.rpc import serving_pb2 as pb
from moonjelly.rpc.messages import SERVICE

SIZES = (64, 80, 96)
Answer = Callable[[pb.Frame], pb.Result | None]


def on_time(frame: pb.Frame) -> pb.Result:
    """One box, whatever the frame shows."""
    box = pb.Box(x1=0.25, y1=0.25, x2=0.75, y2=0.5, score=0.9, class_id=1)
    stages = pb.StageTimes(dispatch_us=10, queue_us=20, infer_us=30, batch=1)
    return pb.Result(
        frame_id=frame.frame_id,
        outcome=pb.OUTCOME_ON_TIME,
        boxes=[box],
        variant=frame.variant,
        next_variant=2,
        plan_version=1,
        stages=stages,
        sent_server_ns=time.monotonic_ns(),
    )


@dataclass
class StubServer:
    """State of the stub; change it while it runs."""

    answer: Answer = on_time
    hold_results: asyncio.Event | None = None
    mute: bool = False
    """Reads everything, says nothing."""
    garbage: bool = False
    """Answers hello with bytes that are no message."""
    placed: bool = True
    token: str = ""
    forgets: bool = False
    """Knows no session after a reconnect."""
    max_frame_bytes: int = 1_000_000
    max_outstanding: int = 32
    protocol_version: int = 1
    port: int = 0
    sessions: dict[bytes, int] = field(default_factory=dict)
    hellos: list[pb.Hello] = field(default_factory=list)
    frames: list[pb.Frame] = field(default_factory=list)
    byes: list[pb.Bye] = field(default_factory=list)
    streams: dict[asyncio.Queue[bytes | None], asyncio.Task[Any] | None] = field(default_factory=dict)
    _server: Any = None

    async def start(self) -> None:
        """Listen on ``port``, any free one at first."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Break every stream and stop listening."""
        await self._server.stop(None)

    async def restart(self) -> None:
        """Break every stream and listen on the same port again."""
        await self.stop()
        await self.start()

    def say(self, message: pb.ServerMessage) -> None:
        """Send ``message`` on every stream."""
        for outbox in self.streams:
            outbox.put_nowait(message.SerializeToString())

    def end_streams(self) -> None:
        """End every stream in order."""
        for outbox in self.streams:
            outbox.put_nowait(None)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if self.token and dict(context.invocation_metadata()).get("authorization") != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "access token missing or wrong")
        outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams[outbox] = None
        reader = asyncio.create_task(self._read(requests, outbox))
        try:
            while (data := await outbox.get()) is not None:
                yield data
        finally:
            self.streams.pop(outbox, None)
            reader.cancel()

    async def _read(self, requests: AsyncIterator[bytes], outbox: asyncio.Queue[bytes | None]) -> None:
        async for data in requests:
            message = pb.ClientMessage.FromString(data)
            kind = message.WhichOneof("kind")
            if self.mute:
                continue
            if kind == "hello":
                self.hellos.append(message.hello)
                outbox.put_nowait(b"\xff\xff no message" if self.garbage else self._greet(message.hello))
            elif kind == "ping":
                now = time.monotonic_ns()
                pong = pb.Pong(sent_client_ns=message.ping.sent_client_ns, received_server_ns=now, sent_server_ns=now)
                outbox.put_nowait(pb.ServerMessage(pongs=[pong]).SerializeToString())
            elif kind == "frame":
                self.frames.append(message.frame)
                await self._serve(message.frame, outbox)
            elif kind == "bye":
                self.byes.append(message.bye)
                outbox.put_nowait(None)

    def _greet(self, hello: pb.Hello) -> bytes:
        token = hello.resume_token
        if token and (self.forgets or token not in self.sessions):
            error = pb.Error(code="UNAUTHENTICATED", message="unknown session", fatal=True)
            return pb.ServerMessage(error=error).SerializeToString()
        if not token:
            token = f"token-{len(self.sessions) + 1}".encode()
            self.sessions[token] = len(self.sessions) + 1
        welcome = pb.Welcome(
            protocol_version=self.protocol_version,
            session_id=self.sessions[token],
            token=token,
            session_ttl_s=30,
            resumed=bool(hello.resume_token),
            last_frame_id=max((frame.frame_id for frame in self.frames), default=0),
            zoo=pb.Zoo(
                name="stub",
                group="default",
                variants=[pb.ZooVariant(name=f"net-{s}", input_size=s, accuracy=s / 256) for s in SIZES],
                classes=["person", "car"],
            ),
            plan=self.plan(),
            max_frame_bytes=self.max_frame_bytes,
            max_outstanding=self.max_outstanding,
            server_version="stub",
        )
        return pb.ServerMessage(welcome=welcome).SerializeToString()

    def plan(self, version: int = 1) -> pb.PlanUpdate:
        """The plan for every client."""
        reason = "" if self.placed else "no device holds its deadline"
        return pb.PlanUpdate(version=version, placed=self.placed, variant=2, batch=1, reason=reason, infer_ms=1.0)

    def _reject(self, frame: pb.Frame) -> pb.Result:
        return pb.Result(frame_id=frame.frame_id, outcome=pb.OUTCOME_REJECTED, reason=self.plan().reason)

    async def _serve(self, frame: pb.Frame, outbox: asyncio.Queue[bytes | None]) -> None:
        now = time.monotonic_ns()
        ack = pb.Ack(frame_id=frame.frame_id, received_server_ns=now, sent_server_ns=now, bytes=len(frame.data))
        outbox.put_nowait(pb.ServerMessage(acks=[ack]).SerializeToString())
        if self.hold_results is not None:
            await self.hold_results.wait()
        result = self.answer(frame) if self.placed else self._reject(frame)
        if result is not None:
            outbox.put_nowait(pb.ServerMessage(results=[result]).SerializeToString())


@asynccontextmanager
async def stub_server(**state: Any) -> AsyncIterator[StubServer]:
    """A running stub."""
    server = StubServer(**state)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
