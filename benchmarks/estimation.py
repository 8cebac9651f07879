"""Our bandwidth estimator against the published system's, on every trace, fed with the same acknowledgements.

First over the modelled link (repeatable, no sockets), then live over TCP: all traces at once, one client each, shaped
by tc where namespaces are allowed and by the user-space relay otherwise. What the clients send is decided by the real
adaptation. Judged are frames longer than twice the bucket, by what the link carries of them when they arrive: the rate
of the trace, less TCP's and the Ethernet's headers where tc counts these. Bars: median absolute error <= 15 % on LTE
and WiFi and <= 25 % on subway traces, <= 1 s behind a halving, and ahead of the published estimator on every trace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moonjelly import network
from moonjelly.adaptation import PADDING_EVERY_MS, PlanView, Skip, Stream, Unacknowledged, decide, padding_bytes
from moonjelly.errors import ZooError
from moonjelly.network import ErrorBasedFilter, Exchange, FrameSizes, HarmonicMean, LinkState, raw_bandwidth_bps
from moonjelly.repository import data_file
from moonjelly.telemetry import ShapingRow, read_rows
from moonjelly.units import ClientInstant, ServerInstant
from network_shaping import catalogue
from network_shaping.bucket import DEFAULT_BURST_BYTES
from network_shaping.modelled import LinkModel, drive
from network_shaping.traces import Trace
from tests.support import namespaces
from tests.support.namespaces import INTERFACE, SERVER_ADDRESS, Pair

BAR, SUBWAY_BAR, HALVING_BAR_S = 0.15, 0.25, 1.0
SIZES = tuple(range(128, 609, 32))
STREAM = Stream(slo_ms=100.0, fps=15.0, input_sizes=SIZES)
PLAN = PlanView(placed=True, variant=15, infer_ms=8.0, overhead_ms=4.0)
RECORDED = ("wifi_trace", "lte_upload_trace")
RECORDED_FILES = (
    "mahimahi-tmobile-lte-short.up",
    "mahimahi-verizon-lte-short.up",
    "nyu-mets-7Train1.csv",
    "nyu-mets-bus57.csv",
)
GENERATED = ("wifi-good", "lte-city", "lte-weak", "subway", "rail-outage", "synthetic_trace")
SUBWAY_LIKE = ("subway", "rail-outage", "nyu-mets-7Train1.csv", "nyu-mets-bus57.csv")
WARM_UP_S = 3.0
TC_PAYLOAD = 1448 / 1514
"""Of a full segment's wire bytes, what is not headers."""
ENOUGH_FRAMES = 3
"""Long frames behind a halving that a rate needs to be judged: on the slowest links they soon fit into the bucket."""
MESSAGE = struct.Struct("!Iq")
ANSWER = struct.Struct("!Iqqq")


@dataclass
class Judged:
    """Absolute relative errors of the three estimators."""

    ours: list[float] = field(default_factory=list)
    filtered: list[float] = field(default_factory=list)
    harmonic: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    _change_s: float = -1.0
    _late_frames: int | None = None

    def follow(self, now_s: float, change_s: float, fell: float, error: float) -> None:
        """Note how long after a halving the estimate is near again: never, when the rate ends before.

        Args:
            now_s: when a long frame arrived.
            change_s: when the link's present rate began.
            fell: that rate over the one before.
            error: estimate over truth.
        """
        if change_s > self._change_s:
            if self._late_frames is not None and self._late_frames >= ENOUGH_FRAMES:
                self.lags_s.append(math.inf)
            self._late_frames = 0 if 0.35 < fell < 0.6 else None
            self._change_s = change_s
        if self._late_frames is None:
            return
        self._late_frames += 1
        if error < 1.25:
            self.lags_s.append(now_s - change_s)
            self._late_frames = None

    def add(self, truth_bps: float, ours: float, filtered: float, harmonic: float) -> None:
        self.ours.append(abs(ours / truth_bps - 1.0))
        self.filtered.append(abs(filtered / truth_bps - 1.0))
        self.harmonic.append(abs(harmonic / truth_bps - 1.0))


@dataclass
class Rivals:
    """The published estimators, fed beside ours."""

    filtered: ErrorBasedFilter = field(default_factory=ErrorBasedFilter)
    harmonic: HarmonicMean = field(default_factory=HarmonicMean)

    def step(self, exchange: Exchange, input_size: int) -> None:
        self.filtered = self.filtered.step(exchange, input_size)
        self.harmonic = self.harmonic.step(exchange.returned, raw_bandwidth_bps(exchange))


def traces() -> dict[str, str]:
    """Label to what :func:`catalogue.resolve` takes."""
    known = {name: name for name in GENERATED}
    try:
        recorded = {name: str(data_file(f"traces/{name}")) for name in RECORDED_FILES}
    except ZooError as fault:
        print(f"recorded traces not measured: {fault}")
        return known
    return {name: name for name in RECORDED} | recorded | known


def encoder(seed: int) -> Callable[[int, int, int], int]:
    """Content that compresses 2.2 times better than the prior and wanders, frame sizes that vary by 5 %."""
    random = np.random.default_rng(seed)
    logs = 0.003 * np.cumsum(random.standard_normal(100_000)) + 0.05 * random.standard_normal(100_000)
    return lambda number, size, quality: max(
        600, round(0.45 * network.prior_bytes(size, quality) * math.exp(logs[number]))
    )


def modelled(trace: Trace, burst_bytes: int, one_way_s: float) -> Judged:
    rivals, judged = Rivals(), Judged()
    model = LinkModel(trace, burst_bytes, one_way_s, jitter_s=0.0005)
    for record in drive(STREAM, PLAN, model, encoder(1), 190.0):
        if record.exchange is None or record.after is None or isinstance(record.decision, Skip):
            continue
        rivals.step(record.exchange, SIZES[record.decision.variant])
        now_s = record.arrived_s - one_way_s
        truth = trace.rate_bps(now_s)
        if record.captured_s < WARM_UP_S or truth == 0.0 or record.size_bytes <= 2 * burst_bytes:
            continue
        estimate = record.after.bandwidth_bps
        judged.add(truth, estimate, rivals.filtered.bandwidth_bps, rivals.harmonic.bandwidth_bps)
        change_s = math.floor(now_s)
        before = trace.rate_bps(max(0.0, change_s - 0.5))
        judged.follow(now_s, change_s, truth / max(1.0, before), estimate / truth)
    return judged


def answer(link: socket.socket) -> None:
    """Acknowledge what comes over one link. The kernel gathers a message: no processor is needed per segment."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with link, contextlib.suppress(OSError):
        while len(head := link.recv(MESSAGE.size, socket.MSG_WAITALL)) == MESSAGE.size:
            size, sent = MESSAGE.unpack(head)
            if size:
                link.recv(size, socket.MSG_WAITALL)
            received = time.monotonic_ns()
            link.send(ANSWER.pack(size, sent, received, time.monotonic_ns()))


def serve(host: str) -> None:
    with socket.create_server((host, 0), backlog=64) as server:
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


class LiveClient:
    """Streams frames over one shaped link and prints every acknowledgement."""

    def __init__(self, name: str, port: int, seed: int) -> None:
        self.name = name
        self._port = port
        self._encoded = encoder(seed)
        self._link = LinkState()
        self._sizes = FrameSizes()
        self._waiting: dict[int, tuple[Unacknowledged, int]] = {}
        self._next_padding_ns = 0

    async def run(self, seconds: float, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        tasks = [asyncio.create_task(self._read(reader)), asyncio.create_task(self._ping(writer))]
        started = asyncio.get_running_loop().time()
        for number in range(int(seconds * STREAM.fps)):
            await asyncio.sleep(max(0.0, started + number / STREAM.fps - asyncio.get_running_loop().time()))
            self._capture(number, writer)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.transport.abort()

    async def _ping(self, writer: asyncio.StreamWriter) -> None:
        while True:
            now, padding = ClientInstant(time.monotonic_ns()), 0
            if now >= self._next_padding_ns:
                waiting = [frame for frame, _ in self._waiting.values()]
                padding = padding_bytes(STREAM, network.estimate(self._link, now), waiting)
                self._next_padding_ns = now + round(PADDING_EVERY_MS * 1e6) * (padding > 0)
            writer.write(MESSAGE.pack(padding, now) + bytes(padding))
            await asyncio.sleep(0.5)

    def _capture(self, number: int, writer: asyncio.StreamWriter) -> None:
        now = ClientInstant(time.monotonic_ns())
        waiting = [frame for frame, _ in self._waiting.values()]
        decision = decide(STREAM, PLAN, network.estimate(self._link, now), waiting, self._sizes, now, now)
        if isinstance(decision, Skip):
            return
        input_size = SIZES[decision.variant]
        size = self._encoded(number, input_size, decision.jpeg_quality)
        self._sizes = network.observe_size(self._sizes, input_size, decision.jpeg_quality, size)
        sent = ClientInstant(time.monotonic_ns())
        self._waiting[sent] = (Unacknowledged(size, sent), input_size)
        writer.write(MESSAGE.pack(size, sent) + bytes(size))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            size, sent, received, replied = ANSWER.unpack(await reader.readexactly(ANSWER.size))
            returned = ClientInstant(time.monotonic_ns())
            exchange = Exchange(size, ClientInstant(sent), ServerInstant(received), ServerInstant(replied), returned)
            self._link = network.observe(self._link, exchange)
            _, input_size = self._waiting.pop(sent) if sent in self._waiting else (None, 0)
            print(json.dumps((self.name, input_size, size, sent, received, replied, returned)))


async def stream(ports: dict[str, int], seconds: float) -> None:
    clients = [LiveClient(name, port, seed) for seed, (name, port) in enumerate(ports.items())]
    # Cameras of their own: in step, they would measure how long this program takes for the others' frames.
    step_s = 1.0 / STREAM.fps / len(clients)
    await asyncio.gather(*(client.run(seconds, index * step_s) for index, client in enumerate(clients)))


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[dict[str, object]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=namespaces.environment())
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def live(known: dict[str, str], seconds: float) -> tuple[str, int, dict[str, Judged]]:
    """Shaper used, its bucket, and the errors per trace."""
    pair = Pair.make("est") if namespaces.problem() is None else None
    here = [sys.executable, str(Path(__file__).resolve())]
    links = [text for name, trace in known.items() for text in ("--link", f"{name}={trace}@7")]
    try:
        with contextlib.ExitStack() as stack:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if pair:
                server = stack.enter_context(started(pair.inside(pair.server, *here, "--serve", SERVER_ADDRESS)))
                target = f"{SERVER_ADDRESS}:{server['port']}"
                shaping = pair.shaping("tc", "--interface", INTERFACE, "--target", target, *links, "--out", str(out))
            else:
                server = stack.enter_context(started([*here, "--serve", "127.0.0.1"]))
                command = [sys.executable, "-m", "network_shaping", "relay", "--target", f"127.0.0.1:{server['port']}"]
                shaping = [*command, *links, "--out", str(out)]
            ports = stack.enter_context(started(shaping))["ports"]
            assert isinstance(ports, list)
            client = [*here, "--stream", json.dumps(dict(zip(known, ports, strict=True))), "--seconds", str(seconds)]
            done = subprocess.run(
                pair.inside(pair.client, *client) if pair else client,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=namespaces.environment(),
            )
            changes = list(read_rows(out / "shaping.csv", ShapingRow))
    finally:
        if pair:
            pair.remove()
    bucket = DEFAULT_BURST_BYTES if pair else 0
    return ("tc" if pair else "relay"), bucket, judge_live(done.stdout, changes, bucket, TC_PAYLOAD if pair else 1.0)


def judge_live(lines: str, changes: list[ShapingRow], bucket: int, payload: float) -> dict[str, Judged]:
    """All estimators, step by step over the same acknowledgements."""
    judged: dict[str, Judged] = {}
    links: dict[str, LinkState] = {}
    rivals: dict[str, Rivals] = {}
    begin = min(row.ts for row in changes) + round(WARM_UP_S * 1e9)
    for name, input_size, *instants in map(json.loads, lines.splitlines()):
        exchange = Exchange(*instants)
        links[name] = network.observe(links.get(name, LinkState()), exchange)
        if not input_size:
            continue  # a ping
        rival = rivals.setdefault(name, Rivals())
        rival.step(exchange, input_size)
        received = exchange.received
        rows = [row for row in changes if row.link == name and row.ts <= received]
        if rows and received > begin and exchange.size_bytes > 2 * bucket and rows[-1].actual_bw > 0.0:
            truth = rows[-1].actual_bw * 1e6 * payload
            ours = network.estimate(links[name], exchange.returned).bandwidth_bps
            told = judged.setdefault(name, Judged())
            told.add(truth, ours, rival.filtered.bandwidth_bps, rival.harmonic.bandwidth_bps)
            fell = rows[-1].actual_bw / max(1e-3, rows[-2].actual_bw) if len(rows) > 1 else 1.0
            told.follow(received / 1e9, rows[-1].ts / 1e9, fell, ours / truth)
    return judged


def report(title: str, table: dict[str, Judged]) -> bool:
    print(f"\n{title}\n{'trace':32} {'frames':>7} {'ours':>7} {'filter':>7} {'harm.':>7} {'halving, s':>11}")
    good = True
    for name, judged in table.items():
        if len(judged.ours) < 30:
            print(f"{name:32} {len(judged.ours):7d}   too few long frames to judge")
            continue
        ours, filtered, harmonic = (
            float(np.median(errors)) for errors in (judged.ours, judged.filtered, judged.harmonic)
        )
        lag_s = float(np.percentile(judged.lags_s, 90, method="higher")) if judged.lags_s else 0.0
        lag = f"{lag_s:11.2f}" if judged.lags_s else f"{'-':>11}"
        held = ours <= (SUBWAY_BAR if name in SUBWAY_LIKE else BAR) and ours < filtered
        held = held and lag_s <= HALVING_BAR_S
        good = good and held
        figures = f"{ours:7.1%} {filtered:7.1%} {harmonic:7.1%} {lag}"
        print(f"{name:32} {len(judged.ours):7d} {figures}{'' if held else '   short'}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the live part; 0 leaves it out")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--stream", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    if options.stream:
        asyncio.run(stream(json.loads(options.stream), options.seconds))
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and processes are cleaned up
    known = traces()
    good = True
    for burst_bytes, one_way_s in ((0, 0.005), (5_000, 0.005)):
        table = {name: modelled(catalogue.resolve(spelled), burst_bytes, one_way_s) for name, spelled in known.items()}
        good = report(f"modelled: bucket {burst_bytes} B, {one_way_s * 1e3:g} ms each way", table) and good
    if options.seconds > 0:
        shaper, bucket, judged = live(known, options.seconds)
        good = report(f"live: {shaper}, bucket {bucket} B, all at once for {options.seconds:g} s", judged) and good
    print(f"\nestimation: {'all bars held' if good else 'short of a bar'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
