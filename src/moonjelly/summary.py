"""``summary.json``: the figures of one run, live or simulated, from its rows.

Invariant, checked on construction: every captured frame has exactly one outcome, so the counts add up, in total and
per client. **Miss rate = 1 - on time / frames captured at the client's nominal rate**: a frame that a client should
have captured and did not counts as captured and skipped, so whoever skips, rejects or idles does not look better.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from moonjelly.telemetry import SCHEMA_VERSION, FrameRow, PlanRow
from moonjelly.types import Outcome

ANSWERED = (Outcome.ON_TIME, Outcome.LATE)
STUDENT_T_95 = (
    12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % quantiles for 1, 2, ... degrees of freedom; 1.96 beyond."""


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What the rows of a client do not say.

    Attributes:
        slo_ms: end-to-end deadline.
        fps: nominal capture rate.
        name: for people; may be empty.
        nominal_frames: frames that it should have captured in its part of the run; ``None``: as many as it did.
    """

    slo_ms: float
    fps: float
    name: str = ""
    nominal_frames: int | None = None


@dataclass(frozen=True, slots=True)
class F1:
    """Detection quality against the golden model.

    Attributes:
        f1: over the frames that were answered in time.
        effective_f1: over every captured frame; a missed one has no detections (Jellyfish's figure).
    """

    f1: float
    effective_f1: float


@dataclass(frozen=True, slots=True)
class LatencyMs:
    """Percentiles of capture to result over answered frames; ``None`` when none was answered."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures that a run and each of its clients have in common.

    Attributes:
        effective_accuracy: mean over captured frames of the profiled accuracy of the variant that answered in time.
        longest_miss_burst: most consecutive misses of one client.
    """

    frames_captured: int
    frames_sent: int
    on_time: int
    late: int
    skipped: int
    rejected: int
    dropped: int
    lost: int
    failed: int
    miss_rate: float
    f1: float | None
    effective_f1: float | None
    effective_accuracy: float
    latency_ms: LatencyMs
    longest_miss_burst: int

    def __post_init__(self) -> None:
        outcomes = (self.on_time, self.late, self.skipped, self.rejected, self.dropped, self.lost, self.failed)
        if min(outcomes) < 0 or sum(outcomes) != self.frames_captured:
            raise ValueError(f"outcomes {outcomes} do not add up to {self.frames_captured} captured frames")
        if not 0 <= self.frames_sent <= self.frames_captured:
            raise ValueError(f"{self.frames_sent} frames sent of {self.frames_captured} captured")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSummary(Figures):
    """One client's figures."""

    client_id: int
    name: str
    slo_ms: float
    fps: float


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """Planning runs: how many, their CPU time, how many devices changed their variant, and what they counted with.

    Attributes:
        latency_factor_mean: batches that a frame was planned to take at its device, over the runs; ``None``: no run.
    """

    count: int
    ms_p50: float | None
    ms_p99: float | None
    switches: int
    latency_factor_mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Figures):
    """A whole run."""

    clients: tuple[ClientSummary, ...]
    plans: PlanFigures
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Figures.__post_init__(self)
        for name in ("frames_captured", "frames_sent", *(outcome.value.lower() for outcome in Outcome)):
            total = sum(getattr(client, name) for client in self.clients)
            if total != getattr(self, name):
                raise ValueError(f"'{name}' is {getattr(self, name)}, its clients' add up to {total}")

    def to_json(self) -> dict[str, Any]:
        """The object of ``summary.json``."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def summarise(
    frames: Iterable[FrameRow],
    plans: Iterable[PlanRow],
    *,
    clients: Mapping[int, ClientInfo],
    f1: F1 | None = None,
    client_f1: Mapping[int, F1] | None = None,
    versions: Mapping[str, str] | None = None,
    machine: Mapping[str, object] | None = None,
) -> Summary:
    """Sum a run up.

    Args:
        frames: one row per captured frame, in any order.
        plans: one row per planning run.
        clients: every client of the run by id, also those without any row.
        f1: over all clients; ``None`` where it is not known, as in a simulation.
        client_f1: by client id.
        versions: of the software, by package.
        machine: what it ran on.

    Raises:
        ValueError: a row names an unknown client, or a client captured a frame twice.
    """
    rows: dict[int, list[FrameRow]] = {client_id: [] for client_id in clients}
    for row in frames:
        if row.client_id not in rows:
            raise ValueError(f"frame {row.frame_id} belongs to client {row.client_id}, which is not in the run")
        rows[row.client_id].append(row)
    qualities = client_f1 or {}
    parts = []
    for client_id, info in clients.items():
        mine = sorted(rows[client_id], key=lambda row: row.frame_id)
        if len({row.frame_id for row in mine}) != len(mine):
            raise ValueError(f"client {client_id} has more than one outcome for one frame")
        figures = _figures(mine, max(len(mine), info.nominal_frames or 0), qualities.get(client_id))
        parts.append(
            ClientSummary(
                **figures,
                longest_miss_burst=_longest_burst(mine),
                client_id=client_id,
                name=info.name,
                slo_ms=info.slo_ms,
                fps=info.fps,
            )
        )
    everything = [row for mine in rows.values() for row in mine]
    return Summary(
        **_figures(everything, sum(part.frames_captured for part in parts), f1),
        longest_miss_burst=max((part.longest_miss_burst for part in parts), default=0),
        clients=tuple(parts),
        plans=_plan_figures(list(plans)),
        versions=dict(versions or {}),
        machine=dict(machine or {}),
    )


def after_warmup(rows: Sequence[FrameRow], warmup_s: float) -> list[FrameRow]:
    """One client's rows without the frames captured in the first ``warmup_s`` seconds after its first one."""
    first = min((row.capture_ts for row in rows), default=0)
    return [row for row in rows if row.capture_ts - first >= warmup_s * 1e9]


def half_width_95(values: Sequence[float]) -> float | None:
    """Half-width of the 95 % confidence interval of the mean of independent repetitions (Student's t).

    ``None`` for fewer than two: one run says nothing about the next.
    """
    count = len(values)
    if count < 2:
        return None
    factor = STUDENT_T_95[count - 2] if count - 2 < len(STUDENT_T_95) else 1.96
    return float(factor * np.std(values, ddof=1) / np.sqrt(count))


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json``; see :func:`write_json`."""
    write_json(path, summary.to_json())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step: a reader sees the whole file or none. Directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _figures(rows: Sequence[FrameRow], captured: int, quality: F1 | None) -> dict[str, Any]:
    counts = Counter(row.outcome for row in rows)
    on_time = counts[Outcome.ON_TIME]
    earned = sum(row.accuracy for row in rows if row.outcome is Outcome.ON_TIME)
    latencies = [row.e2e_latency for row in rows if row.outcome in ANSWERED and row.e2e_latency is not None]
    return {
        "frames_captured": captured,
        "frames_sent": sum(row.send_ts is not None for row in rows),
        "on_time": on_time,
        "late": counts[Outcome.LATE],
        "skipped": counts[Outcome.SKIPPED] + captured - len(rows),
        "rejected": counts[Outcome.REJECTED],
        "dropped": counts[Outcome.DROPPED],
        "lost": counts[Outcome.LOST],
        "failed": counts[Outcome.FAILED],
        "miss_rate": 1.0 - on_time / captured if captured else 0.0,
        "f1": None if quality is None else quality.f1,
        "effective_f1": None if quality is None else quality.effective_f1,
        "effective_accuracy": earned / captured if captured else 0.0,
        "latency_ms": _latency(latencies),
    }


def _latency(values: Sequence[float]) -> LatencyMs:
    if not values:
        return LatencyMs(None, None, None, None)
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return LatencyMs(p50, p90, p99, max(values))


def _longest_burst(rows: Sequence[FrameRow]) -> int:
    runs = groupby(rows, key=lambda row: row.outcome.is_miss)
    return max((sum(1 for _ in run) for missed, run in runs if missed), default=0)


def _plan_figures(plans: Sequence[PlanRow]) -> PlanFigures:
    switches = sum(plan.switches for plan in plans)
    if not plans:
        return PlanFigures(0, None, None, switches, None)
    p50, p99 = (float(value) for value in np.percentile([plan.execution_time for plan in plans], (50, 99)))
    return PlanFigures(len(plans), p50, p99, switches, float(np.mean([plan.latency_factor for plan in plans])))
