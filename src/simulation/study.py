"""Several systems on several traces and seeds, side by side, with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moonjelly.clock import Clock
from moonjelly.profiles import Profile
from moonjelly.telemetry import FrameRow
from network_shaping.catalogue import resolve
from simulation.engine import Engine, RunRows
from simulation.results import accuracy_as_sized, summary_of, write_run
from simulation.systems import System
from simulation.workload import ClientSpec, Workload, WorkloadOptions, draw

TRACE_SECONDS = 600
_T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t, two-sided 95 %, for 1 to 9 degrees of freedom."""


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


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean and half-width of its 95 % confidence interval (Student's t over seeds); ``nan`` for one seed."""

    mean: float
    half_width: float

    def text(self, scale: float = 1.0, digits: int = 3) -> str:
        """``mean +- half width``, scaled."""
        if math.isnan(self.half_width):
            return f"{scale * self.mean:.{digits}f}"
        return f"{scale * self.mean:.{digits}f} ± {scale * self.half_width:.{digits}f}"


def interval(values: Sequence[float]) -> Interval:
    """Over independent repetitions; at least one."""
    mean = statistics.fmean(values)
    count = len(values)
    if count < 2:
        return Interval(mean, math.nan)
    factor = _T_95[count - 2] if count - 2 < len(_T_95) else 1.96
    return Interval(mean, factor * statistics.stdev(values) / math.sqrt(count))


def simulate(
    options: WorkloadOptions,
    trace_name: str,
    profile: Profile,
    system: System,
    seed: int,
    cpu_clock: Clock,
    out: Path | None = None,
    provenance: tuple[Mapping[str, str], Mapping[str, object]] = ({}, {}),
) -> RunFigures:
    """Draw one workload, run one system on it, and write its logs under ``out``."""
    workload = draw(options, resolve(trace_name, seed=seed, seconds=TRACE_SECONDS), profile, seed)
    started_ns = cpu_clock.now_ns()
    rows = Engine(workload, system, cpu_clock).run()
    cpu_s = (cpu_clock.now_ns() - started_ns) / 1e9
    summary = summary_of(workload, rows, *provenance)
    if out is not None:
        write_run(out, workload, rows, summary)
    return RunFigures(
        trace=trace_name,
        system=system.name,
        policy=system.policy,
        dispatcher=system.dispatcher,
        network=system.network,
        seed=seed,
        clients=options.clients,
        fps=" ".join(f"{value:g}" for value in options.fps),
        slo_ms=" ".join(f"{value:g}" for value in options.slo_ms),
        frame_scale=options.frame_scale,
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


def combinations(
    traces: Sequence[str], systems: Sequence[System], seeds: Sequence[int]
) -> Iterator[tuple[str, System, int]]:
    """Every run of a study, the systems of one workload next to one another."""
    return ((trace, system, seed) for trace in traces for seed in seeds for system in systems)


def _near_outage(spec: ClientSpec, row: FrameRow) -> bool:
    trace = spec.trace
    captured_s = (row.capture_ts - spec.clock_offset_ns) / 1e9
    edge_s, end_s = max(0.0, captured_s - spec.slo_ms / 1000), captured_s + spec.slo_ms / 1000
    while edge_s < end_s:
        if trace.rate_bps(edge_s) == 0.0:
            return True
        edge_s = trace.next_change_s(edge_s)
    return trace.rate_bps(end_s) == 0.0
