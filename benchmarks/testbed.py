"""Live in the testbed: real sshd, real tc, simulated executors with a published GPU profile, frames encoded beforehand.

Every run is simulated, too: same seed, the same places of the traces as the live clients had, the round trip, the frame
sizes and the server's own times that they had. The published code is simulated beside it on the same places: its live
figures come from others, and thirty seconds of a trace may be worth 0.02 of accuracy more than thirty others.

Bars: live misses at most 1 % wherever the simulation predicts at most 0.5 %, and within one point of it. Where the
published code has been measured (4 clients): misses at most 0.1 % and effective accuracy at least 0.012 above its
figure; with frames padded to its table of sizes, misses at most 0.4 % at no lower accuracy, neither than its figure
nor than its simulation on the same places and links; at most half its model changes. Where it was not measured (8
clients, 29.97 frames/s, outages) its simulation is the only mark; those bars are marked and do not decide the exit
code. A run that was starved of CPU is repeated once, then shown as invalid and never judged.

Every part says how long its runs are. Where the published code was measured, as long as that: one frame in a thousand
cannot be told in half a minute. With padded frames, long enough to take each device through the whole trace: how much
of the table of sizes a link carries, and with it their accuracy, differs by 0.02 from one minute to another.

``--quick`` runs a representative part of the matrix. Results stay in ``--out``: the same command goes on where it was
interrupted, and repeats what was invalid. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli.machine import machine, versions
from cli.testbed import machines
from cli.testbed.layout import Layout
from experiment_manager.runner import ATTEMPT_FILE
from experiment_manager.sweep import OVERHEAD_S, STARVED_MS
from moonjelly.clock import CpuClock
from moonjelly.interrupts import interruptible
from moonjelly.network import prior_bytes
from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.repository import load_zoo
from moonjelly.telemetry import PlanRow, ShapingRow, read_record, read_rows
from moonjelly.units import NS_PER_S
from network_shaping import catalogue
from network_shaping.bucket import DEFAULT_BURST_BYTES
from network_shaping.traces import Trace
from plots.frames import find_frame_logs, read_frames, read_run
from simulation import systems
from simulation.engine import Engine
from simulation.results import summary_of
from simulation.workload import ClientSpec, Timing, Workload, WorkloadOptions, draw

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench"
ZOO, KIND, DEVICES = "yolov4", "reference-gpu", 2
DATA = Path(os.environ.get("MOONJELLY_DATA", ROOT.parent / "shared" / "data"))
VIDEO = DATA / "videos" / "highway-dashcam.mp4"
"""960x540, a motorway: what the published code was measured with. Frames are about 0.35 of its table of sizes."""
LTE, WIFI = "lte_upload_trace", "wifi_trace"
TIGHT, LIVE_BAR, NEAR = 0.005, 0.01, 0.01
PUBLISHED = {
    (LTE, 75.0, 15.0, False): 0.394,
    (LTE, 100.0, 15.0, False): 0.411,
    (LTE, 150.0, 15.0, False): 0.417,
    (LTE, 100.0, 25.0, False): 0.386,
    (WIFI, 100.0, 15.0, False): 0.429,
    (WIFI, 100.0, 25.0, False): 0.424,
    (LTE, 75.0, 15.0, True): 0.390,
    (LTE, 100.0, 15.0, True): 0.405,
    (LTE, 100.0, 25.0, True): 0.381,
}
"""Effective accuracy of the published code with 4 clients, by trace, deadline, rate and whether frames were padded."""
PUBLISHED_CODE = "sa-dp+jellyfish-fifo+jellyfish"
ALLOWED_MISSES = {False: 0.001, True: 0.004}
GAIN = {False: 0.012, True: 0.0}
CHANGES_PER_MIN = 37.5
"""Half of the fewest that the published code needed."""
WARMUP_S = 8.0
AS_MEASURED_S = 60.0
"""Length of the runs of the published code, after the same warm-up."""
WHOLE_TRACE_S = 199.0
"""Length of Jellyfish's LTE trace."""
PRE_ENCODED = 100
"""Frames per device: encoding them is most of what a run takes beside streaming. The sizes of 200 differ by 1 %."""
BESIDE = "(beside) "
"""Marks bars against the published code's simulation, which issue no verdict."""


@dataclass(frozen=True)
class Part:
    """A rectangle of the matrix: one call of ``experiment run``."""

    name: str
    traces: tuple[str, ...]
    clients: tuple[int, ...] = (4,)
    slo_ms: tuple[float, ...] = (100.0,)
    fps: tuple[float, ...] = (15.0,)
    padded: bool = False
    seconds: float = 30.0

    @property
    def runs(self) -> int:
        return len(self.traces) * len(self.clients) * len(self.slo_ms) * len(self.fps)

    @property
    def minutes(self) -> float:
        return self.runs * (self.seconds + WARMUP_S + OVERHEAD_S) / 60.0


FEW = (
    Part("padded", (LTE,), slo_ms=(75.0, 100.0), padded=True, seconds=WHOLE_TRACE_S),
    Part("padded-25", (LTE,), fps=(25.0,), padded=True, seconds=WHOLE_TRACE_S),
    Part("deadlines", (LTE,), slo_ms=(75.0, 100.0, 150.0), seconds=AS_MEASURED_S),
    Part("rates", (LTE,), fps=(25.0,), seconds=AS_MEASURED_S),
    Part("wifi", (WIFI,), fps=(15.0, 25.0), seconds=AS_MEASURED_S),
    Part("film-rate", (LTE,), (8,), fps=(29.97,)),
    Part("outages", ("subway", "rail-outage")),
)
QUICK = (*FEW, Part("counts", (LTE,), (1, 8)))
PARTS = (
    *FEW,
    Part("grid", (LTE, WIFI), (1, 2, 8), (75.0, 100.0, 150.0), (15.0, 25.0)),
    Part("grid-4-wifi", (WIFI,), slo_ms=(75.0, 150.0), fps=(15.0, 25.0)),
    Part("grid-4-lte", (LTE,), slo_ms=(75.0, 150.0), fps=(25.0,)),
)
"""With ``FEW``, every number of clients, deadline, rate and trace that the matrix has."""


def perform(parts: Sequence[Part], out: Path, source: str, starved_ms: float) -> None:
    """Run what has no valid result yet, in a testbed of its own.

    Raises:
        KeyboardInterrupt: it was told to stop; nothing runs any more, and the testbed is removed.
    """
    layout = Layout(NAME, clients=1)
    machines.down(NAME)
    hosts = machines.up(layout)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        for part in parts:
            words = [*words_of(part, source), "--hosts", str(hosts), "--out", str(out / part.name)]
            words += ["--starved-ms", f"{starved_ms:g}"]
            command = [sys.executable, "-m", "cli", "experiment", "run", *words]
            place = machines.command_in(layout.manager, command)
            # In a session of its own, so that it is told to stop once, by us, and has stopped before the machines go.
            manager = subprocess.Popen(place, cwd=ROOT, env=environment, start_new_session=True)
            try:
                manager.wait()
            except KeyboardInterrupt:
                manager.terminate()
                manager.wait()
                raise
    finally:
        machines.down(NAME)


def words_of(part: Part, source: str) -> list[str]:
    def listed(values: Sequence[float | str]) -> str:
        return ",".join(value if isinstance(value, str) else f"{value:g}" for value in values)

    return [
        *("--clients", listed(part.clients), "--slo-ms", listed(part.slo_ms), "--fps", listed(part.fps)),
        *("--traces", listed(part.traces), "--sources", source, "--pre-encoded", str(PRE_ENCODED)),
        *("--seconds", f"{part.seconds:g}", "--warmup-s", f"{WARMUP_S:g}", "--shaping", "tc"),
        *("--zoo", ZOO, "--runtime", "simulated", "--kind", KIND, "--devices", str(DEVICES)),
        *("--repetitions", "1", "--retries", "1"),
        *(("--padded",) if part.padded else ()),
    ]


def twin(run: Path, row: pd.Series, seconds: float, warmup_s: float, profile: Profile) -> Workload:
    """What one live run met, warm-up included, to simulate."""
    frames = captured(run)
    rtt_ms = float(pd.concat(frames.values())["rtt_ms"].median())
    served = pd.read_csv(run / "logs" / "server" / "frame_stats.csv").query("batch > 0")
    own_ms = served[["dispatch_time", "processing_time", "response_time"]].median()
    options = WorkloadOptions(
        clients=int(row["clients"]),
        fps=(float(row["fps"]),),
        slo_ms=(float(row["slo_ms"]),),
        devices=DEVICES,
        seconds=seconds,
        warmup_s=warmup_s,
        timing=Timing(
            rtt_ms=rtt_ms,
            encode_ms=0.0,
            ingest_ms=float(own_ms["dispatch_time"]),
            decode_ms=float(own_ms["processing_time"]),
            respond_ms=float(own_ms["response_time"]),
        ),
    )
    seed = int(row["seed"])
    drawn = draw(options, catalogue.resolve(row["trace"], seed), profile, seed)
    begun = begun_ns(run)
    clients = tuple(
        as_live(spec, frames[spec.client_id], row["trace"], seed, begun[spec.client_id]) for spec in drawn.clients
    )
    return replace(drawn, clients=clients)


def captured(run: Path) -> dict[int, pd.DataFrame]:
    """Client id to all frames of a run; those of the warm-up, which figures leave out, met the link, too."""
    tables = (read_frames(path) for path in find_frame_logs(run))
    return {int(frames["client_id"].iloc[0]): frames for frames in tables}


@dataclass(frozen=True)
class Predicted:
    """What a simulation says of a run."""

    miss_rate: float
    accuracy: float
    changes_per_min: float


def predict(workload: Workload, system: str) -> Predicted:
    rows = Engine(workload, systems.parse(system), CpuClock()).run()
    summary = summary_of(workload, rows, {}, {})
    switches = sum(row.switches for row in rows.plans if row.ts >= workload.warmup_s * NS_PER_S)
    counted_s = workload.seconds - workload.warmup_s
    return Predicted(summary.miss_rate, summary.effective_accuracy, 60.0 * switches / counted_s)


def as_live(spec: ClientSpec, frames: pd.DataFrame, trace: str, seed: int, begun_ns: float) -> ClientSpec:
    """A simulated client on the part of its trace, and with the frame sizes, that the live one had."""
    link: Trace = catalogue.resolve(trace, seed + spec.client_id, offset_s=None)
    elapsed_s = (float(frames["capture_ts"].min()) - begun_ns - spec.first_capture_ns) / 1e9
    sent = frames.dropna(subset=["frame_wire_size", "input_size"])
    expected = [
        prior_bytes(int(size), int(quality))
        for size, quality in zip(sent["input_size"], sent["jpeg_quality"], strict=True)
    ]
    ticks = (sent["seconds"] * spec.fps).round().astype(int)
    known = pd.Series((sent["frame_wire_size"] / expected).to_numpy(dtype=np.float64), ticks)
    size_factor = known.reindex(range(spec.frames)).ffill().bfill().to_numpy()
    return replace(
        spec,
        trace=link.at_offset(link.offset_s + elapsed_s),
        size_factor=size_factor,
        outages_stop_answers=False,
        bucket_bytes=DEFAULT_BURST_BYTES,
    )


def begun_ns(run: Path) -> dict[int, float]:
    """When each client's trace began, by the clock that its frames were captured by."""
    begun: dict[int, float] = {}
    for path in (run / "logs" / "network").glob("*/shaping.csv"):
        for row in read_rows(path, ShapingRow):
            begun.setdefault(int(row.link.removeprefix("client-")), row.ts - row.late_ms * 1e6)
    return begun


def changes(run: Path) -> float:
    """Model changes on all devices per minute, while frames counted. All machines of a testbed have one clock."""
    counted = [frames["capture_ts"] for frames in read_run(run).values()]
    begin, end = min(float(ts.min()) for ts in counted), max(float(ts.max()) for ts in counted)
    plans = [row for row in read_rows(run / "logs" / "server" / "plans.csv", PlanRow) if begin <= row.ts <= end]
    return 60e9 * sum(row.switches for row in plans) / (end - begin)


@dataclass(frozen=True)
class Judged:
    """A live run beside its simulation and that of the published code on the same places."""

    part: Part
    row: pd.Series
    changes_per_min: float
    predicted: Predicted
    published: Predicted

    def __str__(self) -> str:
        row = self.row
        return f"{self.part.name} {row['trace']} {row['clients']} {row['slo_ms']:g} ms {row['fps']:g} fps"

    def line(self) -> str:
        row, predicted, published = self.row, self.predicted, self.published
        verdict = f"short of {self.short()}" if self.short() else "reached"
        return (
            f"{self.part.name:<11} {row['trace']:<16} {row['clients']:>7} {row['slo_ms']:>4g} {row['fps']:>5g} |"
            f" {row['miss_rate']:>12.2%} {row['effective_accuracy']:>8.3f} {row['latency_p50_ms']:>4.0f}"
            f" {row['latency_p99_ms']:>7.0f}  {self.changes_per_min:>11.0f} |"
            f" {predicted.miss_rate:>17.2%} {predicted.accuracy:>8.3f} |"
            f" {published.miss_rate:>33.2%} {published.accuracy:>8.3f} | {verdict}"
        )

    def short(self) -> int:
        """How many bars it misses."""
        return sum(not holds for bar, holds, _ in self.bars() if not bar.startswith(BESIDE))

    def bars(self) -> Iterator[tuple[str, bool, str]]:
        """Every bar that the run is judged by: in words, whether it holds, and what the run has."""
        missed, predicted = float(self.row["miss_rate"]), self.predicted.miss_rate
        if predicted <= TIGHT:
            name = f"misses at most {LIVE_BAR:.0%} where at most {TIGHT:.1%} are predicted"
            yield name, missed <= LIVE_BAR, f"{missed:.2%}"
        near = abs(missed - predicted) <= NEAR
        yield f"misses within {100 * NEAR:g} point of the prediction", near, f"{missed:.2%}, predicted {predicted:.2%}"
        if (measured := self.measured()) is not None:
            yield from self._bars_where_measured(missed, measured)
        elif self.part.name in ("film-rate", "outages") or self.row["clients"] == 8:
            yield from self._bars_beside(missed)

    def measured(self) -> float | None:
        """Accuracy that was measured of the published code, on other places of the trace; ``None``: it was not."""
        row = self.row
        key = (row["trace"], float(row["slo_ms"]), float(row["fps"]), self.part.padded)
        return PUBLISHED.get(key) if row["clients"] == 4 else None

    def _bars_where_measured(self, missed: float, measured: float) -> Iterator[tuple[str, bool, str]]:
        padded = self.part.padded
        frames = "padded" if padded else "4 clients, unpadded"
        few = missed <= ALLOWED_MISSES[padded]
        yield f"{frames}: misses at most {ALLOWED_MISSES[padded]:.1%}", few, f"{missed:.2%}"
        name = f"{frames}: accuracy of the published code, measured on other places of the trace, + {GAIN[padded]:g}"
        yield self._accuracy(name, measured + GAIN[padded])
        if padded:
            name = f"{frames}: accuracy of the published code, simulated on the same places and links"
            yield self._accuracy(name, self.published.accuracy)
        rare = self.changes_per_min <= CHANGES_PER_MIN
        yield f"{frames}: at most {CHANGES_PER_MIN:g} model changes a minute", rare, f"{self.changes_per_min:.0f}"

    def _bars_beside(self, missed: float) -> Iterator[tuple[str, bool, str]]:
        frames = f"{BESIDE}8 clients, 29.97 fps, outages"
        published, most = self.published, max(self.published.miss_rate, ALLOWED_MISSES[False])
        name = f"{frames}: misses of the published code, simulated, or {ALLOWED_MISSES[False]:.1%}"
        yield name, missed <= most, f"{missed:.2%}, it {published.miss_rate:.2%}"
        name = f"{frames}: accuracy of the published code, simulated, + {GAIN[False]:g}"
        yield self._accuracy(name, published.accuracy + GAIN[False])
        rare = self.changes_per_min <= published.changes_per_min / 2.0
        told = f"{self.changes_per_min:.0f} a minute, it {published.changes_per_min:.0f}"
        yield f"{frames}: half the model changes of the published code, simulated", rare, told

    def _accuracy(self, name: str, asked: float) -> tuple[str, bool, str]:
        accuracy = float(self.row["effective_accuracy"])
        return name, accuracy >= asked, f"{accuracy:.3f}, asked {asked:.3f}"


@lru_cache(maxsize=1)
def device_profile() -> Profile:
    return load_zoo(ZOO).profile(KIND, ProfileOptions(percentile=99.0))


def fault(part: Part, run: Path, row: pd.Series) -> str:
    """Why a run that has been tried is not judged; empty: it is."""
    if row["state"] != "done":
        return f"{row['state']}: {row['reason']}"
    seconds = read_record(run / ATTEMPT_FILE)["conditions"]["seconds"]
    return "" if seconds == part.seconds else f"{seconds:g} s long, {part.seconds:g} s are asked for"


def simulate(part: Part, run: Path, row: pd.Series) -> Judged:
    """A valid run beside its simulations."""
    workload = twin(run, row, part.seconds, WARMUP_S, device_profile())
    return Judged(part, row, changes(run), predict(workload, row["policy"]), predict(workload, PUBLISHED_CODE))


def results(parts: Sequence[Part], out: Path) -> Iterator[tuple[Part, Path, pd.Series]]:
    """Every run of the parts that has been tried, with the deadline and rate of its clients."""
    for part in parts:
        if not (out / part.name / "runs.csv").exists():
            continue
        table = pd.read_csv(out / part.name / "runs.csv", dtype={"client": str})
        goals = table[table["client"] != "all"].groupby("run")[["slo_ms", "fps"]].first()
        for _, row in table[table["client"] == "all"].iterrows():
            known = row["run"] in goals.index
            told = pd.concat([row.drop(["slo_ms", "fps"]), goals.loc[row["run"]]]) if known else row
            yield part, out / part.name / row["run"], told


def report(parts: Sequence[Part], out: Path) -> int:
    """Print a line per run, then how many runs hold each bar."""
    print(
        "part        trace            clients  SLO   fps | live: misses accuracy  p50  p99 ms  changes/min |"
        " simulated: misses accuracy | published code, simulated: misses accuracy |"
    )
    tried, judged = [(*one, fault(*one)) for one in results(parts, out)], []
    with ProcessPoolExecutor() as pool:
        begun = [(run, pool.submit(simulate, part, run, row)) for part, run, row, why in tried if not why]
        for run, coming in begun:
            if (raised := coming.exception()) is None:
                judged.append(coming.result())
                print(judged[-1].line(), flush=True)
            else:
                print(f"{run} cannot be judged: {raised!r}", flush=True)
    for part, _, row, why in tried:
        if why:
            print(f"{part.name:<11} INVALID {row['run']} {why}")
    print_bars(judged)
    wanted, reached = sum(part.runs for part in parts), sum(not one.short() for one in judged)
    short, missing = len(judged) - reached, wanted - len(judged)
    print(f"{reached} of {wanted} runs reach every bar; {short} short, {missing} without a valid result")
    return 0 if reached == wanted else 1


def print_bars(judged: Iterable[Judged]) -> None:
    """A line per bar, in the order in which they first occur: in how many runs it holds, and which are short."""
    counted: dict[str, list[tuple[Judged, bool, str]]] = {}
    for one in judged:
        for bar, holds, told in one.bars():
            counted.setdefault(bar, []).append((one, holds, told))
    print()
    for bar, runs in sorted(counted.items(), key=lambda item: item[0].startswith(BESIDE)):
        short = [f"{one}: {told}" for one, holds, told in runs if not holds]
        print(f"{'short' if short else 'holds'}  {len(runs) - len(short):>2} of {len(runs):>2}  {bar}")
        for line in short:
            print(f"{'':16} {line}")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a representative part of the matrix")
    parser.add_argument("--only", default="", help="parts, separated by commas; --list names them")
    parser.add_argument("--seconds", type=float, default=None, help="length of every run (default: what its part says)")
    parser.add_argument("--starved-ms", type=float, default=STARVED_MS, help="mean wait above which a run is repeated")
    parser.add_argument("--list", action="store_true", help="name the parts and how long they take, and stop")
    parser.add_argument("--report", action="store_true", help="judge what is in --out already, and stop")
    parser.add_argument("--out", type=Path, default=None, help="default: out/testbed, or out/testbed-quick")
    options = parser.parse_args()
    known = QUICK if options.quick else PARTS
    names = [name for name in options.only.split(",") if name] or [part.name for part in known]
    if unknown := [name for name in names if name not in {part.name for part in known}]:
        parser.error(f"no part '{unknown[0]}'; there are {', '.join(part.name for part in known)}")
    parts = [replace(part, seconds=options.seconds or part.seconds) for part in known if part.name in names]
    for part in parts:
        print(f"{part.name:<11} {part.runs:>2} runs of {part.seconds:3g} s, about {part.minutes:.0f} minutes")
    print(f"together about {sum(part.minutes for part in parts):.0f} minutes when none is repeated", flush=True)
    if options.list:
        return 0
    out = options.out or Path("out") / ("testbed-quick" if options.quick else "testbed")
    source = str(VIDEO) if VIDEO.exists() else "synthetic"
    print(json.dumps({"machine": machine(), "versions": versions()}, default=str))
    print(
        f"frames of {Path(source).name}, zoo {ZOO} on {DEVICES} simulated devices '{KIND}'; results in {out}",
        flush=True,
    )
    with interruptible():
        try:
            if not options.report:
                perform(parts, out.absolute(), source, options.starved_ms)
            return report(parts, out)
        except KeyboardInterrupt:
            print(f"interrupted: the testbed is removed; results stay in {out}, the same command goes on from there")
            return 130


if __name__ == "__main__":
    sys.exit(main())
