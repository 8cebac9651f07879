"""How fast a client notices that its link is gone, and how fast it is served again when the link is back.

A real server, shaper and client; the shaper's trace has outages of several lengths. tc drops every packet (in network
namespaces, needs root), the relay holds everything. "Noticed": from the begin of the outage to the first frame that the
client withholds because the connection is gone. "Resumed": from the end of the outage to the first answer in time for a
frame captured after it. Bars: 3 s and 1 s, and no frame captured in an outage is processed later than its deadline.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from moonjelly.telemetry import FrameRow, ServerFrameRow, ShapingRow, read_rows
from moonjelly.types import Outcome
from tests.support import namespaces
from tests.support.namespaces import INTERFACE, SERVER_ADDRESS, Pair

NOTICED_BAR_S, RESUMED_BAR_S = 3.0, 1.0
FPS, SLO_MS, UP_S, RATE_MBIT = 25, 100, 8, 10
GONE = ("no connection to the server", "link outage")


@contextlib.contextmanager
def started(command: list[str], ready_fd: bool = False) -> Iterator[dict[str, object]]:
    """A process that says in a JSON line, on stdout or on a descriptor of its own, that it is ready."""
    read_fd, write_fd = os.pipe()
    words = [*command, "--ready-fd", str(write_fd)] if ready_fd else command
    process = subprocess.Popen(
        words, stdout=None if ready_fd else write_fd, pass_fds=(write_fd,), env=namespaces.environment()
    )
    os.close(write_fd)
    try:
        with open(read_fd, encoding="utf-8") as ready:
            line = ready.readline()
            if not line:
                raise RuntimeError(f"{' '.join(words)} ended before it was ready")
            yield json.loads(line)
    finally:
        process.terminate()
        process.wait(30)


def run(shaper: str, outages_s: list[int], out: Path) -> None:
    """Stream through all outages; logs end up below ``out``."""
    rates = [RATE_MBIT] * UP_S * 2  # the client starts in the first of them
    for outage_s in outages_s:
        rates += [0] * outage_s + [RATE_MBIT] * UP_S
    trace = out / "trace.txt"
    trace.write_text("".join(f"{rate}\n" for rate in rates), encoding="utf-8")
    pair = Pair.make("outage") if shaper == "tc" else None
    address = SERVER_ADDRESS if pair else "127.0.0.1"
    server = [sys.executable, "-m", "server", "--zoo", "yolov4", "--runtime", "simulated", "--kind", "reference-gpu"]
    server += ["--devices", "1", "--host", address, "--port", "0", "--out", str(out / "server")]
    try:
        with started(pair.inside(pair.server, *server) if pair else server, ready_fd=True) as ready:
            words = [shaper, "--target", f"{address}:{ready['port']}", "--link", f"a={trace}", "--out", str(out)]
            shaping = pair.shaping(*words, "--interface", INTERFACE) if pair else None
            with started(shaping or [sys.executable, "-m", "network_shaping", *words]) as link:
                ports = link["ports"]
                assert isinstance(ports, list)
                client = [
                    sys.executable,
                    "-m",
                    "client",
                    "--server",
                    f"127.0.0.1:{ports[0]}",
                    "--out",
                    str(out / "client"),
                ]
                client += ["--fps", str(FPS), "--slo-ms", str(SLO_MS), "--seconds", str(len(rates) - UP_S // 2)]
                subprocess.run(
                    pair.inside(pair.client, *client) if pair else client,
                    check=True,
                    env=namespaces.environment(),
                    stderr=subprocess.DEVNULL,
                )
    finally:
        if pair:
            pair.remove()


def judge(shaper: str, out: Path) -> bool:
    frames = sorted(read_rows(out / "client" / "frame_stats.csv", FrameRow), key=lambda row: row.capture_ts)
    changes = list(read_rows(out / "shaping.csv", ShapingRow))
    processed = {
        row.frame_id
        for row in read_rows(out / "server" / "frame_stats.csv", ServerFrameRow)
        if row.prediction_time > 0.0
    }
    good = True
    edges = [changes[0], *(after for before, after in pairwise(changes) if before.actual_bw != after.actual_bw)]
    for down, up in pairwise(edges):
        if down.actual_bw > 0.0 or not frames[0].capture_ts < down.ts < frames[-1].capture_ts:
            continue
        noticed = next((row for row in frames if row.capture_ts > down.ts and row.reason.startswith(GONE)), None)
        resumed = next((row for row in frames if row.capture_ts > up.ts and row.outcome is Outcome.ON_TIME), None)
        stale = [row for row in frames if down.ts < row.capture_ts < up.ts - SLO_MS * 1e6 and row.frame_id in processed]
        assert noticed is not None, "the outage was not noticed"
        assert resumed is not None, "the session was not resumed"
        assert resumed.recv_ts is not None
        noticed_s, resumed_s = (noticed.capture_ts - down.ts) / 1e9, (resumed.recv_ts - up.ts) / 1e9
        held = noticed_s <= NOTICED_BAR_S and resumed_s <= RESUMED_BAR_S and not stale
        good = good and held
        print(
            f"  {shaper}: outage of {(up.ts - down.ts) / 1e9:5.1f} s: noticed in {noticed_s:.2f} s, resumed in"
            f" {resumed_s:.2f} s, {len(stale)} stale frames processed{'' if held else '   short'}",
            flush=True,
        )
    return good


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and processes are cleaned up
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("tc", "relay"), help="measure one of the two")
    parser.add_argument("--outages-s", default="3,4,5,6,8,11,60", help="their lengths; longer than noticing takes")
    options = parser.parse_args()
    outages_s = [int(word) for word in options.outages_s.split(",")]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, {FPS} frames/s, SLO {SLO_MS} ms, {RATE_MBIT} Mbit/s", flush=True)
    good = True
    for shaper in ("tc", "relay"):
        if options.only not in (None, shaper):
            continue
        if shaper == "tc" and (found := namespaces.problem()):
            print(f"  tc: not measured: {found}")
            continue
        with tempfile.TemporaryDirectory() as name:
            run(shaper, outages_s, Path(name))
            good = judge(shaper, Path(name)) and good
    print(f"outage: {'all bars held' if good else 'short of a bar'} (noticed in 3 s, resumed in 1 s, nothing stale)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
