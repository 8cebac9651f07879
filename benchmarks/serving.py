"""What the benchmarks of the server share: the bare echo that it is measured against, and clients that cost little."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from moonjelly.rpc import client_wire
from moonjelly.rpc import serving_pb2 as pb
from tests.support.serving import Server, environment, hello, jpeg, running_server, write_zoo

FRAME_BYTES = 70 * 1024
ANSWER_BYTES = 600
OURS, ECHO = "/moonjelly.v1.Serving/Stream", "/bench.Echo/Stream"
_AIO: Any = grpc.aio
"""Its stubs know neither streams of raw bytes nor their end."""
_EOF = _AIO.EOF


def describe() -> None:
    """Print machine and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("grpcio", "protobuf", "uvloop", "msgspec"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{versions}; load average {os.getloadavg()[0]:.1f}")


def picture() -> bytes:
    """A JPEG of exactly ``FRAME_BYTES`` (padded after its end marker, as decoders allow)."""
    return jpeg(64).ljust(FRAME_BYTES, b"\0")


async def echo() -> None:
    """The floor: a stream on which every message is answered with ``ANSWER_BYTES``; nothing is parsed."""
    answer = bytes(ANSWER_BYTES)

    async def stream(_: Any, context: Any) -> None:
        while await context.read() is not _EOF:
            await context.write(answer)

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Its port; it lives in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serving"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


@contextlib.contextmanager
def instant_server(*arguments: str) -> Iterator[Server]:
    """A server whose simulated device answers after 0 ms."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        zoo = write_zoo(place / "zoo", latencies_ms=(0.05, 0.06, 0.07, 0.08))
        with running_server(place, "--scale", "0", *arguments, zoo=zoo) as server:
            yield server


@contextlib.asynccontextmanager
async def stream(port: int, method: str) -> AsyncIterator[Any]:
    """An open stream of raw bytes."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with _AIO.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.stream_stream(method)()
        yield call
        call.cancel()


@contextlib.asynccontextmanager
async def streams(port: int, method: str, count: int) -> AsyncIterator[list[Any]]:
    """Several of them, each on a connection of its own."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stream(port, method)) for _ in range(count)]


async def join(call: Any, **changes: Any) -> None:
    """Say hello and wait for a place."""
    await call.write(client_wire.write(hello(**changes)))
    while True:
        message = pb.ServerMessage.FromString(await call.read())
        if message.error.code:
            raise RuntimeError(message.error.message)
        if message.plan.placed or message.welcome.plan.placed:
            return


def frame(frame_id: int, data: bytes) -> bytes:
    """A frame's bytes on the wire, captured now; put together by hand, so that the client's share stays small."""
    now_ns = time.monotonic_ns()
    head = pb.Frame(
        frame_id=frame_id,
        captured_client_ns=now_ns,
        sent_client_ns=now_ns,
        encoding=pb.ENCODING_JPEG,
        width=64,
        height=64,
        quality=90,
        bandwidth_bps=50e6,
        rtt_ms=1.0,
        offset=pb.ClockOffset(server_minus_client_ns=0, bound_ns=1),
    ).SerializeToString()
    picture = b"\x62" + varint(len(data))  # field 12, length-delimited
    return b"".join((b"\x12", varint(len(head) + len(picture) + len(data)), head, picture, data))


def varint(value: int) -> bytes:
    """Protobuf's encoding of a non-negative number."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


async def results(call: Any) -> int:
    """Read one message; how many results it carries."""
    return results_in(await call.read())


def results_in(data: bytes) -> int:
    """How many results a message of the server carries."""
    message = pb.ServerMessage.FromString(data)
    for result in message.results:
        if result.outcome != pb.OUTCOME_ON_TIME:
            raise RuntimeError(f"frame {result.frame_id} ended as {pb.Outcome.Name(result.outcome)}: {result.reason}")
    return len(message.results)


def now_us() -> float:
    """For intervals."""
    return time.perf_counter_ns() / 1000


if __name__ == "__main__":
    uvloop.run(echo())
