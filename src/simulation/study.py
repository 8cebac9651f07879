"""Several systems on several traces and seeds, side by side, with confidence intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.profiles import Profile
from moonjelly.summary import Summary
from moonjelly.telemetry import FrameRow
from moonjelly.units import NS_PER_S
from network_shaping.catalogue import resolve
from network_shaping.traces import Trace
from simulation.engine import Engine, RunRows
from simulation.results import accuracy_as_sized, summary_of, write_run
from simulation.systems import System
from simulation.workload import ClientSpec, Workload, WorkloadOptions, draw

TRACE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One system on one workload."""

    trace: str
    system: System
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        """Tells it from the other runs of a study: trace, system and seed, as its figures have them."""
        return self.trace, self.system.name, self.seed

    @property
    def folder(self) -> Path:
        """Where its logs go, below the study's folder."""
        return Path(Path(self.trace).name) / self.system.name / f"seed-{self.seed}"


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """Every system on every trace with every seed. What is named twice runs once: it would count as a repetition.

    Attributes:
        traces: names or files of uplinks.
        systems: to compare.
        seeds: of the workloads, and of traces that are generated.
        workload: how it is drawn.
        profile: of the devices.

    Raises:
        ConfigError: there is nothing to run, or the results of two traces would share a folder.
        TraceError: a trace is unknown.
    """

    traces: tuple[str, ...]
    systems: tuple[System, ...]
    seeds: range
    workload: WorkloadOptions
    profile: Profile

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError(f"'seeds' = {len(self.seeds)}; at least one is needed")
        folders = Counter(Path(trace).name for trace in dict.fromkeys(self.traces))
        shared = next((name for name, count in folders.items() if count > 1), None)
        if shared is not None:
            raise ConfigError(f"two traces are called '{shared}', and their results would share a folder; rename one")
        for trace in self.traces:
            resolve(trace, seed=self.seeds[0])  # a wrong name is said before anything is run

    def links(self) -> list[Trace]:
        """What its traces' names and files stand for, with the first seed."""
        return [resolve(trace, seed=self.seeds[0], seconds=TRACE_SECONDS) for trace in dict.fromkeys(self.traces)]

    def runs(self) -> list[StudyRun]:
        """Of the study; the systems of one workload next to one another."""
        traces, systems = dict.fromkeys(self.traces), dict.fromkeys(self.systems)
        return [StudyRun(trace, system, seed) for trace in traces for seed in self.seeds for system in systems]


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One row of ``runs.csv``: one system on one workload.

    Attributes:
        accuracy_as_sized: lower bound on ``effective_accuracy``, see :func:`simulation.results.accuracy_as_sized`.
        miss_rate_outside_outages: misses among frames that were captured while the link was up and for a deadline
            before and after, over those frames.
        cpu_s: of the simulation.
        real_time_factor: simulated seconds per CPU second, planning included.
    """

    trace: str
    system: str
    policy: str
    dispatcher: str
    network: str
    seed: int
    clients: int
    fps: str
    slo_ms: str
    frame_scale: float
    seconds: float
    frames: int
    miss_rate: float
    miss_rate_outside_outages: float
    effective_accuracy: float
    accuracy_as_sized: float
    late: int
    skipped: int
    rejected: int
    dropped: int
    lost: int
    p50_ms: float | None
    p99_ms: float | None
    longest_miss_burst: int
    plans: int
    switches: int
    cpu_s: float
    real_time_factor: float


def simulate(
    options: StudyOptions,
    run: StudyRun,
    cpu_clock: Clock,
    out: Path | None = None,
    provenance: tuple[Mapping[str, str], Mapping[str, object]] = ({}, {}),
) -> RunFigures:
    """Draw a run's workload, let its system serve it, and write its logs into its folder below ``out``.

    Args:
        options: of the study.
        run: one of its runs.
        cpu_clock: measures the simulation; no result depends on what it says.
        out: of the study; ``None``: nothing is written.
        provenance: versions and machine, for ``summary.json``.
    """
    trace = resolve(run.trace, seed=run.seed, seconds=TRACE_SECONDS)
    workload = draw(options.workload, trace, options.profile, run.seed)
    started_ns = cpu_clock.now_ns()
    rows = Engine(workload, run.system, cpu_clock).run()
    cpu_s = (cpu_clock.now_ns() - started_ns) / NS_PER_S
    summary = summary_of(workload, rows, *provenance)
    if out is not None:
        write_run(out / run.folder, workload, rows, summary)
    return _figures(options.workload, run, workload, rows, summary, cpu_s)


def _figures(
    options: WorkloadOptions, run: StudyRun, workload: Workload, rows: RunRows, summary: Summary, cpu_s: float
) -> RunFigures:
    return RunFigures(
        trace=run.trace,
        system=run.system.name,
        policy=run.system.policy,
        dispatcher=run.system.dispatcher,
        network=run.system.network,
        seed=run.seed,
        clients=options.clients,
        fps=" ".join(f"{value:g}" for value in options.fps),
        slo_ms=" ".join(f"{value:g}" for value in options.slo_ms),
        frame_scale=options.frame_scale,
        seconds=options.warmup_s + options.seconds,
        frames=summary.frames_captured,
        miss_rate=summary.miss_rate,
        miss_rate_outside_outages=miss_rate_outside_outages(workload, rows),
        effective_accuracy=summary.effective_accuracy,
        accuracy_as_sized=accuracy_as_sized(workload, rows),
        late=summary.late,
        skipped=summary.skipped,
        rejected=summary.rejected,
        dropped=summary.dropped,
        lost=summary.lost,
        p50_ms=summary.latency_ms.p50,
        p99_ms=summary.latency_ms.p99,
        longest_miss_burst=summary.longest_miss_burst,
        plans=summary.plans.count,
        switches=summary.plans.switches,
        cpu_s=cpu_s,
        real_time_factor=workload.seconds / cpu_s if cpu_s > 0.0 else math.inf,
    )


def miss_rate_outside_outages(workload: Workload, rows: RunRows) -> float:
    """Misses over frames captured while the link was up, but for those within a deadline of an outage."""
    specs = {spec.client_id: spec for spec in workload.clients}
    outside = [row for row in rows.frames if not _near_outage(specs[row.client_id], row)]
    return sum(row.outcome.is_miss for row in outside) / len(outside) if outside else 0.0


def _near_outage(spec: ClientSpec, row: FrameRow) -> bool:
    trace = spec.trace
    captured_s = (row.capture_ts - spec.clock_offset_ns) / NS_PER_S
    edge_s, end_s = max(0.0, captured_s - spec.slo_ms / 1000), captured_s + spec.slo_ms / 1000
    while edge_s < end_s:
        if trace.rate_bps(edge_s) == 0.0:
            return True
        edge_s = trace.next_change_s(edge_s)
    return trace.rate_bps(end_s) == 0.0
