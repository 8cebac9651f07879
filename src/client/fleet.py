"""N clients, each its own process, started together and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.config import Camera, ClientOptions
from client.process import Descriptors, write_client_summary
from client.progress import LineWriter, Show, progress_line
from client.stopping import StopRequest
from moonjelly.errors import MoonjellyError
from moonjelly.pipe import at_end_of
from moonjelly.summary import ClientInfo
from moonjelly.telemetry import read_record

START_TIMEOUT_S = 60.0
"""For importing and opening the source, beside the time to register."""
STOP_TIMEOUT_S = 10.0
"""Between SIGTERM and SIGKILL."""


class FleetError(MoonjellyError):
    """A client of a fleet that did not start or failed."""


@dataclass(slots=True)
class _Member:
    camera: Camera
    directory: Path
    process: Process
    ready: asyncio.StreamReader
    status: asyncio.StreamReader
    start: int
    lifeline: int
    latest: dict[str, Any] = field(default_factory=dict)

    def let_go(self) -> None:
        """Let it begin: the end of its start pipe is the signal."""
        if self.start >= 0:
            os.close(self.start)
            self.start = -1


class Fleet:
    """A parent and its clients.

    Args:
        options: with ``clients`` > 1.
        descriptors: of the parent; the fleet is ready when all clients are.
        show: told of the progress, in words.
    """

    def __init__(self, options: ClientOptions, descriptors: Descriptors, show: Show) -> None:
        self._options = options
        self._descriptors = descriptors
        self._show = show
        self._members: list[_Member] = []
        self._stop = StopRequest()

    async def run(self) -> int:
        """Run all clients to their end; 0 when all of them ended well.

        Raises:
            FleetError: one of them did not start; its own line says why.
        """
        self._stop.listen(self._descriptors.lifeline)
        try:
            for number in range(self._options.clients):
                self._members.append(await self._start(self._options.camera(number)))
            if await self._stop.before(self._all_ready()):
                self._announce()
                await self._watch()
        finally:
            statuses = await self._end()
        self._summarise()
        return self._stop.exit_status if self._stop.event.is_set() else max(statuses, default=0)

    async def _start(self, camera: Camera) -> _Member:
        directory = self._options.out / f"host_{camera.client_id}"
        source = Path(__file__).resolve().parents[1]
        environment = {**os.environ, "MOONJELLY_CLIENT_TOKEN": self._options.token}
        environment["PYTHONPATH"] = os.pathsep.join((str(source), str(source.parent)))
        ours, theirs = {}, {}
        with contextlib.ExitStack() as of_child, contextlib.ExitStack() as unless_started:
            for name in ("ready", "status", "start", "lifeline"):
                read, write = os.pipe()
                ours[name], theirs[name] = (read, write) if name in ("ready", "status") else (write, read)
                unless_started.callback(os.close, ours[name])
                of_child.callback(os.close, theirs[name])
            command = [sys.executable, "-m", "client", *_arguments(self._options, camera, directory)]
            command += [word for name, end in theirs.items() for word in (f"--{name}-fd", str(end))]
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=tuple(theirs.values()),
                env=environment,
                start_new_session=True,  # Ctrl-C comes to the parent alone, which passes it on
            )
            unless_started.pop_all()
        ready, status = await _reader(ours["ready"]), await _reader(ours["status"])
        return _Member(camera, directory, process, ready, status, ours["start"], ours["lifeline"])

    async def _all_ready(self) -> None:
        limit_s = START_TIMEOUT_S + self._options.register_timeout_s
        for member in self._members:
            try:
                line = await asyncio.wait_for(member.ready.readline(), limit_s)
            except asyncio.TimeoutError:
                raise FleetError(f"{member.camera.name} was not ready within {limit_s:g} s") from None
            if not line:
                status = await member.process.wait()
                raise FleetError(f"{member.camera.name} ended with status {status} before it was ready")

    def _announce(self) -> None:
        if self._descriptors.ready is not None:
            ready = LineWriter(self._descriptors.ready)
            ready.write({"clients": [member.camera.client_id for member in self._members], "pid": os.getpid()})
            ready.close()

    async def _watch(self) -> None:
        if self._descriptors.start is not None:
            started = asyncio.Event()
            at_end_of(self._descriptors.start, started.set, line_suffices=True)
            await self._stop.before(started.wait())
        for member in self._members:
            member.let_go()
        lines = LineWriter(self._descriptors.status) if self._descriptors.status is not None else None
        tasks = [asyncio.create_task(self._follow(member, lines)) for member in self._members]
        await self._stop.before(asyncio.wait(tasks))
        if self._stop.event.is_set():
            self._signal_all(signal.SIGTERM)
        await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if lines is not None:
            lines.close()

    async def _follow(self, member: _Member, lines: LineWriter | None) -> None:
        """Until the client closes its status pipe, which is when it has ended."""
        async for line in member.status:
            member.latest = json.loads(line)
            if lines is not None:
                lines.write(member.latest)
            self._show(progress_line([one.latest for one in self._members if one.latest]))
        await member.process.wait()

    async def _end(self) -> list[int]:
        """Stop whatever still runs and wait for every child."""
        statuses = []
        self._signal_all(signal.SIGTERM)
        for member in self._members:
            member.let_go()
            try:
                status = await asyncio.wait_for(member.process.wait(), STOP_TIMEOUT_S)
            except asyncio.TimeoutError:
                member.process.kill()
                status = await member.process.wait()
            statuses.append(abs(status))
            os.close(member.lifeline)
        return statuses

    def _signal_all(self, number: int) -> None:
        for member in self._members:
            if member.process.returncode is None:
                member.process.send_signal(number)

    def _summarise(self) -> None:
        clients = {}
        for member in self._members:
            path = member.directory / "client.json"
            if path.exists():
                settings = read_record(path)
                clients[member.camera.client_id] = ClientInfo(settings["slo_ms"], settings["fps"], settings["name"])
        if clients:
            write_client_summary(self._options.out, clients, [member.directory for member in self._members])


def _arguments(options: ClientOptions, camera: Camera, directory: Path) -> list[str]:
    """The command line of one client; the access token goes by the environment, where others cannot read it."""
    given: dict[str, object] = {
        "server": options.server,
        "source": camera.source,
        "slo-ms": camera.slo_ms,
        "fps": camera.fps,
        "seconds": options.seconds,
        "group": options.group,
        "name": camera.name,
        "client-id": camera.client_id,
        "seed": options.seed,
        "out": directory,
        "buffer": options.buffer.value,
        "scene-seconds": options.scene_seconds,
        "pre-encoded": options.pre_encoded,
        "root-certificates": options.root_certificates,
        "register-timeout-s": options.register_timeout_s,
        "reconnect-s": options.reconnect_s,
        "congestion-control": options.congestion_control,
    }
    words = [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]
    return [*words, "--loop" if options.loop else "--no-loop", "--padded" if options.padded else "--no-padded"]


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader
