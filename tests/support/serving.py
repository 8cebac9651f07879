"""Real servers and a bare client of the wire, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
import psutil
import simplejpeg

from moonjelly.rpc import client_wire, messages, server_wire
from moonjelly.telemetry import read_rows
from moonjelly.units import ClientInstant

STREAM = "/moonjelly.v1.Serving/Stream"
SIZES = (64, 96, 128, 160)
Row = TypeVar("Row")


def write_zoo(directory: Path, *, name: str = "paper", latencies_ms: Sequence[float] = (4.0, 6.0, 9.0, 13.0)) -> Path:
    """A zoo without weights, with one profile of kind ``paper-gpu``: batch b costs 0.75 + 0.25 b of batch 1."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = SIZES[: len(latencies_ms)]
    variants = "\n".join(
        f'[[variants]]\nname = "net-{size}"\nmodel = "net"\ninput_size = {size}\nprecision = "fp32"\n' for size in sizes
    )
    (directory / "zoo.toml").write_text(
        f'format = 1\nname = "{name}"\nclasses = ["car", "person"]\nprofile_key = "input_size"\n'
        f'[models.net]\narchitecture = "darknet"\ndefinition = "net.cfg"\nweights = "net.weights"\n{variants}'
    )
    kind = directory / "paper-gpu"
    (kind / "latency").mkdir(parents=True, exist_ok=True)
    rows = [f"{size},{0.2 + 0.1 * index}" for index, size in enumerate(sizes)]
    (kind / "accuracy.txt").write_text("ModelSize,Accuracy\n" + "\n".join(rows) + "\n")
    for size, alone_ms in zip(sizes, latencies_ms, strict=True):
        lines = [f"{size},{batch},{alone_ms * (0.75 + 0.25 * batch):.4f}" for batch in range(1, 13) for _ in range(12)]
        (kind / "latency" / f"profile_latency_{size}.txt").write_text(
            "ModelSize,Batch,InferenceTime\n" + "\n".join(lines) + "\n"
        )
    return directory


def jpeg(size: int = 64, seed: int = 0, quality: int = 90) -> bytes:
    """A picture of noise, ``size`` x ``size``."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420"))


@dataclass(frozen=True)
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    port: int
    out: Path
    stderr: Path

    @property
    def pid(self) -> int:
        """Of the endpoint."""
        return self.process.pid

    def children(self, module: str = "") -> list[psutil.Process]:
        """Its child processes that run ``module``, in the order in which they were started."""
        found = psutil.Process(self.pid).children(recursive=True)
        return sorted((child for child in found if module in command_line(child)), key=lambda one: one.create_time())

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[list[psutil.Process]]:
        """Its executors, stopped: what is sent to them meanwhile waits, however fast or slow the machine is."""
        executors = self.children("server.executor")
        for executor in executors:
            executor.suspend()
        try:
            yield executors
        finally:
            for executor in executors:
                with contextlib.suppress(psutil.NoSuchProcess):
                    executor.resume()

    def errors(self) -> str:
        """What it wrote on stderr so far."""
        return self.stderr.read_text()


def free_port() -> int:
    """One below those that outgoing connections take, so that none takes it while its server restarts."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    for port in random.sample(range(1024, lowest), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


PATIENCE_S = 200.0
"""Long enough for any machine; a test's own time limit may be lost where it interrupts gRPC."""
LOOK_EVERY_S = 0.05


def counting(first: int = 1) -> Iterator[int]:
    """Numbers of frames for a loop that ends when what must come has come."""
    deadline = time.monotonic() + PATIENCE_S
    for number in itertools.count(first):
        assert time.monotonic() < deadline, "what was waited for never came"
        yield number


def until(
    condition: Callable[[], object],
    why: str | Callable[[], str] = "what was waited for never came",
    patience_s: float = PATIENCE_S / 2,
) -> None:
    """Wait for what must come. Patience is counted in looks: a machine that stands still for a minute costs one."""
    looks = math.ceil(patience_s / LOOK_EVERY_S)
    while not condition():
        looks -= 1
        assert looks > 0, why if isinstance(why, str) else why()
        time.sleep(LOOK_EVERY_S)  # the state of another process has no event to wait for


@contextlib.contextmanager
def ended_at_last(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Whatever happens meanwhile, ``process`` does not outlive its test."""
    with process:
        try:
            yield
        finally:
            process.kill()


def command_line(process: psutil.Process) -> str:
    """Empty for one that has ended, which may happen at any time."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


GRPC_LINE = re.compile(r"([IWEF]\d{4} \d\d:\d\d:\d\d|WARNING: All log messages before absl)")
"""gRPC's own remarks: about a process that forks, a transport that is closed, and others."""


def own_lines(stderr: str) -> list[str]:
    """What a program said itself."""
    return [line for line in stderr.splitlines() if not GRPC_LINE.match(line)]


def rows_so_far(path: Path, row_type: type[Row]) -> list[Row]:
    """Rows of a log that another process is writing: those that are whole, and none while there is no file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, path.name)
        whole.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        return list(read_rows(whole, row_type)) if whole.stat().st_size else []


def command(*arguments: str) -> list[str]:
    """``python -m server`` with ``arguments``."""
    return [sys.executable, "-m", "server", *arguments]


def environment() -> dict[str, str]:
    """With the clone's packages in the path."""
    root = Path(__file__).resolve().parents[2]
    return os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}


@contextlib.contextmanager
def running_server(
    tmp_path: Path, *arguments: str, zoo: Path | str | None = None, devices: int = 1
) -> Iterator[Server]:
    """A server with simulated devices on a free port; afterwards SIGTERM, and nothing of it may be left."""
    place = zoo if zoo is not None else write_zoo(tmp_path / "zoo")
    out = tmp_path / "server"
    read_fd, write_fd = os.pipe()
    stderr = tmp_path / "server.stderr"
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            command(
                "--zoo", str(place), "--runtime", "simulated", "--devices", str(devices), "--port", "0",
                "--out", str(out), "--ready-fd", str(write_fd), *arguments,
            ),
            env=environment(), pass_fds=(write_fd,), stderr=errors, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    os.close(write_fd)
    try:
        with open(read_fd, encoding="utf-8") as ready:
            line = ready.readline()
        assert line, f"the server did not start: {stderr.read_text()}"
        server = Server(process, json.loads(line)["port"], out, stderr)
        family = [psutil.Process(process.pid), *server.children()]
        yield server
        family += [child for child in server.children() if child not in family] if process.poll() is None else []
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(100)
        except subprocess.TimeoutExpired:
            process.kill()  # its children end with it
            process.wait()
            raise
    _, left = psutil.wait_procs(family, timeout=60)
    assert not left, f"left behind: {left}"


class WireClient:
    """A client that speaks the wire and does nothing by itself.

    Attributes:
        welcome: the server's.
        received: every message so far.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self.received: list[messages.ServerMessage] = []
        self.welcome: messages.Welcome | None = None

    async def send(self, message: messages.ClientMessage) -> None:
        """Write one message."""
        await self.send_bytes(client_wire.write(message))

    async def send_bytes(self, data: bytes) -> None:
        """Write raw bytes."""
        await self._call.write(data)

    async def frame(self, frame_id: int, data: bytes, **changes: Any) -> None:
        """Send one frame, captured now."""
        await self.send(frame_of(frame_id, data, **changes))

    async def read(self) -> messages.ServerMessage | None:
        """The next message; ``None`` at the end."""
        try:
            data = await asyncio.wait_for(self._call.read(), 100)
        except grpc.aio.AioRpcError:
            return None
        if data is grpc.aio.EOF:
            return None
        message = server_wire.read(data)
        self.received.append(message)
        if message.welcome is not None:
            self.welcome = message.welcome
        return message

    async def until(self, found: Callable[[messages.ServerMessage], Any]) -> Any:
        """Read until ``found`` says something true, and return that."""
        while (message := await self.read()) is not None:
            if value := found(message):
                return value
        raise AssertionError(f"the stream ended ({await self.status()}) before it came; so far: {self.received}")

    async def result(self, frame_id: int) -> messages.Result:
        """The result of one frame, which may have come already."""

        def find(message: messages.ServerMessage) -> messages.Result | None:
            return next((result for result in message.results if result.frame_id == frame_id), None)

        for message in self.received:
            if (result := find(message)) is not None:
                return result
        found: messages.Result = await self.until(find)
        return found

    async def placed(self) -> messages.PlanUpdate:
        """The plan, once the client has a place."""
        assert self.welcome is not None
        if self.welcome.plan.placed:
            return self.welcome.plan
        plan: messages.PlanUpdate = await self.until(lambda m: m.plan if m.plan and m.plan.placed else None)
        return plan

    async def acknowledged(self, frame_id: int) -> None:
        """Wait until the server has read a frame."""

        def told(message: messages.ServerMessage) -> bool:
            return any(ack.frame_id == frame_id for ack in message.acks)

        if not any(map(told, self.received)):
            await self.until(told)

    async def error(self) -> messages.StreamError:
        """The next error."""
        found: messages.StreamError = await self.until(lambda message: message.error)
        return found

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended."""
        return await self._call.code(), await self._call.details()

    def cancel(self) -> None:
        """Vanish."""
        self._call.cancel()


def frame_of(frame_id: int, data: bytes, **changes: Any) -> messages.Frame:
    """A frame of a 64 x 64 picture captured now, on this host's clock (offset 0)."""
    now = ClientInstant(time.monotonic_ns())
    fields: dict[str, Any] = {
        "frame_id": frame_id, "captured_ns": now, "sent_ns": now, "width": 64, "height": 64, "variant": 0,
        "quality": 90, "bandwidth_bps": 50e6, "rtt_ms": 1.0, "server_minus_client_ns": 0, "offset_bound_ns": 1,
        "data": data,
    }  # fmt: skip
    return messages.Frame(**(fields | changes))


def hello(**changes: Any) -> messages.Hello:
    """A client of 15 fps with a deadline that is generous: what is tested is not speed."""
    fields: dict[str, Any] = {"name": "test", "slo_ms": 20_000.0, "fps": 15.0, "bandwidth_bps": 50e6, "one_way_ms": 0.5}
    return messages.Hello(**(fields | changes))


@contextlib.asynccontextmanager
async def connected(port: int, token: str = "") -> AsyncIterator[WireClient]:
    """A stream on which nothing has been said."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    # Without bandwidth probing the window stays small, and a client that does not read is noticed soon.
    options = (
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.stream_stream(STREAM)(metadata=metadata)
        try:
            yield WireClient(call)
        finally:
            call.cancel()


@contextlib.asynccontextmanager
async def welcomed(port: int, **changes: Any) -> AsyncIterator[WireClient]:
    """A stream after hello and welcome."""
    async with connected(port) as client:
        await client.send(hello(**changes))
        await client.until(lambda message: message.welcome)
        yield client
