"""Shaped throughput against the trace, and what shaping costs.

Both shapers get a continuous backlog: tc an endless stream of datagrams over a veth pair (wire bytes are counted at the
interface), the user-space relay an endless TCP stream (bytes are counted at the receiver). Every second of the trace
is judged on its own, but for those in which this program was starved of a processor, which are shown. Bars: within 5 %
of the trace's rate from 1 to 100 Mbit/s, applied within 20 ms, 16 clients under tc with less than 5 % of a core. What
the relay costs is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moonjelly.telemetry import ShapingRow, read_rows
from network_shaping.queues import class_of
from tests.support import namespaces
from tests.support.namespaces import INTERFACE, SERVER_ADDRESS, Pair

RATE_BAR, LATE_BAR_MS, CPU_BAR = 0.05, 20.0, 0.05
STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 3.0, 75.0, 1.0, 30.0, 7.5)
SINK = """
import signal, socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 5001))
print('{"ready": true}', flush=True)
signal.pause()  # nobody reads: what overflows is dropped behind the interface, where it has been counted
"""
FLOOD = """
import os, socket, sys, threading, traceback
started = threading.Barrier(len(sys.argv) - 1)
def flood(priority):
    try:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
        client.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)  # SO_SNDBUFFORCE
        client.connect((sys.argv[1], 5001))
        packet = bytes(1400)
        client.send(packet)
        started.wait()
        while True:
            client.send(packet)  # blocks while the queue holds a socket buffer's worth
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # a flow that ended is no backlog
for priority in sys.argv[2:]:
    threading.Thread(target=flood, args=(int(priority),)).start()
started.wait()
print('{"ready": true}', flush=True)
"""
"""Datagrams of a class each, from sockets that hold 80 ms of 100 Mbit/s."""
BACKLOG_BYTES = 4 << 20
"""Before every bucket, so that no socket's packets are dropped there."""
COUNT = """
import sys, time
from pathlib import Path
counter = open(f"/sys/class/net/{sys.argv[1]}/statistics/tx_bytes")
waits = [path.open() for path in Path(f"/proc/{sys.argv[2]}/task").glob("*/schedstat")]
def fresh(file):
    file.seek(0)
    return file.read()
while True:
    waited_ns = max(int(fresh(file).split()[1]) for file in waits)
    print(time.monotonic(), int(fresh(counter)), waited_ns / 1e9, flush=True)
    time.sleep(0.01)
"""
"""Instant, bytes that left the interface, seconds that the flood has waited for a processor."""
EDGE_GAP_S, BACKLOG_S = 0.02, 0.04
"""A second is not judged when the sampler slept over its edge for longer than a new rate has to be applied, or when the
flood waited for a processor, at once, for half of what its sockets hold at the highest rate."""


def write_trace(directory: Path, rates: tuple[float, ...]) -> str:
    path = directory / "trace.txt"
    path.write_text("".join(f"{rate}\n" for rate in rates), encoding="utf-8")
    return str(path)


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=namespaces.environment())
    try:
        yield process
        if process.poll() not in (None, -signal.SIGTERM):
            raise RuntimeError(f"{' '.join(command[-4:])} ended by itself, with status {process.returncode}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.stdout is not None
        process.stdout.close()


def ready(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended before it was ready, with status {process.wait()}")
    answer: dict[str, object] = json.loads(line)
    return answer


def cpu_share(pid: int, seconds: float) -> float:
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system) / seconds


@dataclass(frozen=True)
class Second:
    """One interval of the trace that was watched from end to end; ``starved``: why it says nothing, or empty."""

    rate_mbit: float
    measured_mbit: float
    starved: str = ""

    @property
    def error(self) -> float:
        return self.measured_mbit / self.rate_mbit - 1.0


def judge(rows: list[ShapingRow], samples: np.ndarray) -> list[Second]:
    """The trace's seconds against samples of (instant, bytes passed, seconds that the source waited).

    A new rate has 20 ms to be applied, so an interval is judged from then on: after 75 Mbit/s, one millisecond more of
    it is 7 % of a second of 1 Mbit/s.
    """
    instants, totals, waits = samples.T
    judged = []
    for begin, end in itertools.pairwise(rows):
        edges = np.array([begin.ts - begin.late_ms * 1e6 + LATE_BAR_MS * 1e6, end.ts - end.late_ms * 1e6]) / 1e9
        if edges[0] < instants[0] or edges[1] > instants[-1]:
            continue
        first, last = np.interp(edges, instants, totals)
        after = np.searchsorted(instants, edges)
        gap_s = float(np.max(instants[after] - instants[after - 1]))
        wait_s = float(np.max(np.diff(waits[after[0] - 1 : after[1] + 1])))
        starved = f"sampler slept for {1e3 * gap_s:.0f} ms" if gap_s > EDGE_GAP_S else ""
        starved = f"source waited for {1e3 * wait_s:.0f} ms" if wait_s > BACKLOG_S else starved
        judged.append(Second(begin.bw, (last - first) * 8 / (edges[1] - edges[0]) / 1e6, starved))
    return judged


def report(name: str, seconds: list[Second], rows: list[ShapingRow]) -> bool:
    for second in seconds:
        told = f"trace {second.rate_mbit:6.1f} Mbit/s, measured {second.measured_mbit:7.2f} ({second.error:+.1%})"
        verdict = f"   starved: {second.starved}" if second.starved else ""
        print(f"  {name}: {told}{verdict or ('' if abs(second.error) <= RATE_BAR else '   outside 5 %')}")
    errors = [abs(second.error) for second in seconds if not second.starved]
    late_ms = float(np.percentile([row.late_ms for row in rows], 99))
    if len(errors) < len(STEPS) / 2:
        print(f"  {name}: {len(seconds) - len(errors)} of {len(seconds)} seconds starved: nothing to judge; repeat it")
        return False
    print(
        f"  {name}: worst second {max(errors):.1%}, median {np.median(errors):.2%}, {len(seconds) - len(errors)} of "
        f"{len(seconds)} seconds starved, applied {late_ms:.2f} ms late (p99)"
    )
    return max(errors) <= RATE_BAR and late_ms <= LATE_BAR_MS


def measure_tc(directory: Path) -> bool:
    pair = Pair.make("bench")
    try:
        with running(pair.python(pair.server, SINK, SERVER_ADDRESS)) as sink:
            ready(sink)
            alone = tc_run(pair, directory / "tc-1", write_trace(directory, STEPS), 1, len(STEPS) + 1.5)
            good = report("tc", *alone[:2])
            many = tc_run(pair, directory / "tc-16", write_trace(directory, (4.0, 6.0, 2.0)), 16, 8.0)
    finally:
        pair.remove()
    print(f"  tc: 16 clients, {100 * many[2]:.1f} % of a core")
    return good and many[2] < CPU_BAR


def tc_run(
    pair: Pair, out: Path, trace: str, clients: int, seconds: float
) -> tuple[list[Second], list[ShapingRow], float]:
    links = [text for index in range(clients) for text in ("--link", f"c{index}={trace}")]
    # The relay's ports stay unused: datagrams of the same class are a backlog that never backs off.
    words = ["--interface", INTERFACE, "--target", f"{SERVER_ADDRESS}:1", "--queue-bytes", str(BACKLOG_BYTES)]
    command = pair.shaping("tc", *words, *links, "--out", str(out))
    priorities = [str(class_of(index)) for index in range(clients)]
    with running(command) as shaper:
        ready(shaper)
        with running(pair.python(pair.client, FLOOD, SERVER_ADDRESS, *priorities)) as source:
            ready(source)
            with running(pair.python(pair.client, COUNT, INTERFACE, str(source.pid))) as counter:
                share = cpu_share(shaper.pid, seconds)
                counter.terminate()
                assert counter.stdout is not None
                # The last line may be cut off by the end.
                samples = np.array([line.split() for line in counter.stdout.read().splitlines()[:-1]], dtype=float)
    rows = [row for row in read_rows(out / "shaping.csv", ShapingRow) if row.link == "c0"]
    return judge(rows, samples), rows, share


def measure_relay(directory: Path) -> bool:
    out = directory / "relay"
    trace = write_trace(directory, STEPS)
    command = [sys.executable, "-m", "network_shaping", "relay", "--link", f"c0={trace}", "--out", str(out)]
    samples: list[tuple[float, int, float]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with running([*command, "--server", f"127.0.0.1:{port}"]) as shaper:
            ports = ready(shaper)["ports"]
            assert isinstance(ports, list)
            with socket.create_connection(("127.0.0.1", ports[0])) as client:
                threading.Thread(target=flood, args=(client,), daemon=True).start()
                inner, _ = server.accept()
                threading.Thread(target=count, args=(inner, samples), daemon=True).start()
                backlogged = cpu_share(shaper.pid, len(STEPS) + 1.0)
                client.shutdown(socket.SHUT_RDWR)
    rows = list(read_rows(out / "shaping.csv", ShapingRow))
    good = report("relay", judge(rows, np.array(samples)), rows)
    print(f"  relay: {100 * backlogged:.1f} % of a core at {np.mean(STEPS):.0f} Mbit/s of backlog")
    share = streams_share(directory)
    print(f"  relay: {100 * share:.1f} % of a core for 4 clients at 30 frames/s of 20 kB")
    return good


def streams_share(directory: Path) -> float:
    command = [sys.executable, "-m", "network_shaping", "relay", "--clients", "4", "--trace", "lte-city"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        shaper = stack.enter_context(running([*command, "--server", f"127.0.0.1:{server.getsockname()[1]}"]))
        ports = ready(shaper)["ports"]
        assert isinstance(ports, list)
        clients = [socket.create_connection(("127.0.0.1", port)) for port in ports]
        for client in clients:
            threading.Thread(target=count, args=(server.accept()[0], []), daemon=True).start()
            threading.Thread(target=stream, args=(client,), daemon=True).start()
        share = cpu_share(shaper.pid, 8.0)
        for client in clients:
            client.shutdown(socket.SHUT_RDWR)
            client.close()
    return share


def flood(client: socket.socket) -> None:
    payload = bytes(1 << 16)
    try:
        while True:
            client.sendall(payload)
    except OSError:
        return


def stream(client: socket.socket) -> None:
    payload, due = bytes(20_000), time.monotonic()
    try:
        while True:
            client.sendall(payload)
            due += 1 / 30
            time.sleep(max(0.0, due - time.monotonic()))
    except OSError:
        return


def count(inner: socket.socket, samples: list[tuple[float, int, float]]) -> None:
    total = 0
    with inner:
        while data := inner.recv(1 << 16):
            total += len(data)
            samples.append((time.monotonic(), total, 0.0))  # the flood lies in TCP's buffers and never runs out


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and processes are cleaned up
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("tc", "relay"), help="measure one of the two")
    only = parser.parse_args().only
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, pyroute2 {version('pyroute2')}")
    good = True
    with tempfile.TemporaryDirectory() as name:
        if only != "tc":
            good = measure_relay(Path(name)) and good
        if only != "relay":
            if found := namespaces.problem():
                print(f"  tc: not measured: {found}")
            else:
                good = measure_tc(Path(name)) and good
    print(f"shaping: {'all bars held' if good else 'short of a bar'} (5 % per second, 20 ms, 5 % of a core)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
