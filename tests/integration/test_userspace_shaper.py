"""The user-space shaper between real sockets.

Nothing here judges how late something is: only that bytes never pass before the trace allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moonjelly.clock import Clock, ManualClock
from moonjelly.telemetry import CsvLog, ShapingRow, read_rows
from network_shaping.pacing import MAX_CHUNK_BYTES
from network_shaping.traces import Trace
from network_shaping.userspace import LinkSpec, UserspaceShaper

SLACK_BYTES = 2_000
"""Half a millisecond early at the rates used here, and rounding."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER``: for no time at all."""


@dataclass
class Target:
    """A server that notes what comes when, and echoes if asked to."""

    echo: bool = False
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.arrivals.append((time.monotonic(), len(data)))
                self.received += data
                if self.echo:
                    writer.write(data)
            self.ended.set()
            if self.echo:
                writer.write(b"end")
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def target(echo: bool = False) -> AsyncIterator[Target]:
    made = Target(echo)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@contextlib.asynccontextmanager
async def shaped(
    port: int, *links: LinkSpec, log: CsvLog[ShapingRow] | None = None, clock: Clock | None = None
) -> AsyncIterator[dict[str, tuple[str, int]]]:
    shaper = UserspaceShaper(("127.0.0.1", port), links, log, clock=clock)
    addresses = await shaper.start()
    shaper.begin()
    try:
        yield addresses
    finally:
        await shaper.close()


def link(*rates_mbit: float, **options: float) -> LinkSpec:
    return LinkSpec("c0", Trace.uniform("test", [rate * 1e6 for rate in rates_mbit], 0.3), **options)  # type: ignore[arg-type]


async def test_bytes_pass_unchanged_both_ways() -> None:
    payload = bytes(range(256)) * 1_500
    async with target(echo=True) as server, shaped(server.port, link(60.0, delay_s=0.01)) as at:
        reader, writer = await asyncio.open_connection(*at["c0"])
        writer.write(payload)
        writer.write_eof()
        assert await reader.read(-1) == payload + b"end"
        writer.close()


@pytest.mark.parametrize("rates", [(8.0,), (16.0, 4.0), (20.0, 0.0, 6.0)])
async def test_never_faster_than_the_trace(rates: tuple[float, ...]) -> None:
    """The bytes that have come by any instant are at most what the trace has carried by then."""
    spec = link(*rates)
    async with target() as server:
        before = time.monotonic()
        async with shaped(server.port, spec) as at:
            _, writer = await asyncio.open_connection(*at["c0"])
            writer.write(bytes(900_000))
            writer.write_eof()
            await server.ended.wait()
            writer.close()
    assert len(server.received) == 900_000
    total = 0
    for instant, size in server.arrivals:
        total += size
        assert total * 8 <= spec.uplink.delivered_bits(instant - before) + SLACK_BYTES * 8


async def test_connections_of_a_link_share_it() -> None:
    spec = link(8.0)
    async with target() as server:
        before = time.monotonic()
        async with shaped(server.port, spec) as at:
            writers = [(await asyncio.open_connection(*at["c0"]))[1] for _ in range(3)]
            for writer in writers:
                writer.write(bytes(100_000))
            while len(server.received) < 300_000:
                await asyncio.sleep(0.01)
            for writer in writers:
                writer.close()
    assert (time.monotonic() - before) * 8e6 >= 300_000 * 8 - SLACK_BYTES * 8


async def test_the_queue_stays_with_the_sender() -> None:
    """A sender on a link that stands nearly still is stopped after what small buffers hold, not after megabytes."""
    async with target() as server, shaped(server.port, link(0.001)) as at:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            client.connect(at["c0"])
            client.setblocking(False)
            accepted = 0
            idle = 0
            while idle < 5:
                try:
                    accepted += client.send(bytes(4_096))
                    idle = 0
                except BlockingIOError:
                    idle += 1
                    await asyncio.sleep(0.01)
        assert accepted < 16_384 * 4 + MAX_CHUNK_BYTES + 64_000


async def test_an_outage_stops_the_way_back_and_new_connections() -> None:
    spec = LinkSpec("c0", Trace.uniform("test", [80e6, 0.0, 80e6], 1.0))
    async with target(echo=True) as server:
        before = time.monotonic()
        async with shaped(server.port, spec) as at:
            await asyncio.sleep(1.05 - (time.monotonic() - before))
            reader, writer = await asyncio.open_connection(*at["c0"])
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert time.monotonic() - before >= 1.999
            writer.close()


async def test_a_link_stands_at_the_first_rate_that_is_no_outage_until_its_trace_begins(tmp_path: Path) -> None:
    log, clock = CsvLog(tmp_path / "shaping.csv", ShapingRow), ManualClock()
    async with target(echo=True) as server:
        shaper = UserspaceShaper(("127.0.0.1", server.port), [link(0.0, 80.0)], log, clock=clock)
        reader, writer = await asyncio.open_connection(*(await shaper.start())["c0"])
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        clock.advance_ns(5_000_000_000)
        shaper.begin()
        writer.write(b"after")
        while not (rows := list(read_rows(tmp_path / "shaping.csv", ShapingRow))):
            await asyncio.sleep(0.01)
        assert [(row.ts, row.bw, row.actual_bw) for row in rows] == [(5_000_000_000, 0.0, 0.0)]
        assert server.received == b"before"
        clock.advance_ns(300_000_000)
        assert await reader.readexactly(5) == b"after"
        writer.close()
        await shaper.close()
    log.close()


async def test_who_gives_up_in_an_outage_was_never_there() -> None:
    spec, clock = LinkSpec("c0", Trace.uniform("test", [0.0, 80e6], 0.5)), ManualClock()
    async with target(echo=True) as server, shaped(server.port, spec, clock=clock) as at:
        _, given_up = await asyncio.open_connection(*at["c0"])
        given_up.write(b"old")
        given_up.close()
        await given_up.wait_closed()
        reader, writer = await asyncio.open_connection(*at["c0"])
        writer.write(b"new")
        clock.advance_ns(600_000_000)
        assert await reader.readexactly(3) == b"new"
        writer.close()
    assert server.received == b"new"


async def test_what_is_held_of_a_connection_is_dropped_when_it_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spec, clock = LinkSpec("c0", Trace.uniform("test", [80e6, 0.0, 80e6], 0.5)), ManualClock()
    async with target(echo=True) as server, shaped(server.port, spec, clock=clock) as at:
        reader, given_up = await asyncio.open_connection(*at["c0"])
        given_up.write(b"first")
        assert await reader.readexactly(5) == b"first"
        clock.advance_ns(600_000_000)
        given_up.write(bytes(8_000))
        given_up.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        given_up.transport.abort()
        while "link c0: the client has reset its connection" not in caplog.text:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*at["c0"])
        writer.write(b"new")
        clock.advance_ns(500_000_000)
        assert await reader.readexactly(3) == b"new"
        writer.close()
    assert server.received == b"firstnew"


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with shaped(unused.getsockname()[1], link(8.0)) as at:
            reader, writer = await asyncio.open_connection(*at["c0"])
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()


async def test_a_broken_connection_does_not_touch_another() -> None:
    async with target(echo=True) as server, shaped(server.port, link(20.0)) as at:
        reader, writer = await asyncio.open_connection(*at["c0"])
        other = socket.create_connection(at["c0"])
        other.send(bytes(20_000))
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        other.close()
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # all below are in use
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(lowest)


async def test_a_connection_that_cannot_be_taken_is_said_and_taken_later(caplog: pytest.LogCaptureFixture) -> None:
    async with target(echo=True) as server, shaped(server.port, link(20.0)) as at:
        with socket.socket() as client:
            with no_descriptors():
                client.connect(at["c0"])
                while "link c0: a connection could not be taken: [Errno 24]" not in caplog.text:
                    await asyncio.sleep(0.01)
            client.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"at last")
            assert await reader.readexactly(7) == b"at last"
            writer.close()


async def test_a_row_that_is_written_late_tells_the_rate_in_force_then(tmp_path: Path) -> None:
    log, clock = CsvLog(tmp_path / "shaping.csv", ShapingRow), ManualClock(5_000_000_000)
    shaper = UserspaceShaper(("127.0.0.1", 1), [link(10.0, 20.0, 30.0)], log, clock=clock)
    await shaper.start()
    shaper.begin()
    clock.advance_ns(750_000_000)
    rows: list[ShapingRow] = []
    while len(rows) < 3:
        await asyncio.sleep(0)
        rows = list(read_rows(tmp_path / "shaping.csv", ShapingRow))
    await shaper.close()
    log.close()
    assert [(row.bw, row.actual_bw) for row in rows] == [(10.0, 30.0), (20.0, 30.0), (30.0, 30.0)]
    assert [row.late_ms for row in rows] == pytest.approx([750.0, 450.0, 150.0])
    assert {row.ts for row in rows} == {5_750_000_000}


async def test_every_change_is_logged(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "shaping.csv", ShapingRow)
    rows: list[ShapingRow] = []
    async with target() as server, shaped(server.port, link(8.0, 0.0, 4.0), log=log):
        while len(rows) < 4:
            await asyncio.sleep(0.05)
            rows = list(read_rows(tmp_path / "shaping.csv", ShapingRow))
    log.close()
    assert [row.bw for row in rows[:4]] == [8.0, 0.0, 4.0, 8.0]
    assert {row.link for row in rows} == {"c0"}
    assert all(row.late_ms >= 0.0 for row in rows)
    steps = [after.ts - before.ts for before, after in itertools.pairwise(rows)]
    assert all(step > 0 for step in steps)
