"""What a simulated run leaves behind: the same ``summary.json`` and CSV files as a live run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from moonjelly.summary import ClientInfo, Summary, summarise, write_summary
from moonjelly.telemetry import (
    CsvLog,
    DispatchRow,
    FpsRow,
    FrameRow,
    PlanRow,
    Row,
    ServerFrameRow,
    ShapingRow,
)
from moonjelly.units import NS_PER_S
from simulation.engine import RunRows
from simulation.rows import fps_rows, shaping_rows
from simulation.workload import ClientSpec, Workload


def counted_frames(spec: ClientSpec, workload: Workload) -> int:
    """Frames that a client captures after the warm-up."""
    counted_ns = round(workload.warmup_s * NS_PER_S)
    return sum(spec.captured_ns(frame_id) >= counted_ns for frame_id in range(spec.frames))


def summary_of(
    workload: Workload, rows: RunRows, versions: Mapping[str, str], machine: Mapping[str, object]
) -> Summary:
    """Sum up what comes after the warm-up."""
    clients = {
        spec.client_id: ClientInfo(spec.slo_ms, spec.fps, f"client-{spec.client_id}", counted_frames(spec, workload))
        for spec in workload.clients
    }
    plans = [plan for plan in rows.plans if plan.ts >= workload.warmup_s * NS_PER_S]
    return summarise(rows.frames, plans, clients=clients, versions=versions, machine=machine)


def accuracy_as_sized(workload: Workload, rows: RunRows) -> float:
    """Effective accuracy when a frame that was sized for a smaller variant than the one that ran earns only that one's.

    A lower bound: a large model on a small frame does better than the small model.
    """
    profile = next(iter(workload.profiles.values()))
    accuracy = {variant.name: value for variant, value in zip(profile.variants, profile.accuracy, strict=True)}
    captured = sum(counted_frames(spec, workload) for spec in workload.clients)
    earned = sum(min(row.accuracy, accuracy[row.desired_model]) for row in rows.frames if row.accuracy > 0.0)
    return earned / captured if captured else 0.0


def write_run(out: Path, workload: Workload, rows: RunRows, summary: Summary) -> None:
    """Write ``summary.json`` and ``logs/`` of one run under ``out``."""
    server, client = out / "logs" / "server", out / "logs" / "client"
    _write(server / "frame_stats.csv", ServerFrameRow, rows.server_frames)
    _write(server / "plans.csv", PlanRow, rows.plans)
    _write(server / "dispatch.csv", DispatchRow, rows.dispatches)
    for spec in workload.clients:
        host = client / f"host_{spec.client_id}"
        mine = [row for row in rows.frames if row.client_id == spec.client_id]
        _write(host / "frame_stats.csv", FrameRow, mine)
        _write(host / "fps.csv", FpsRow, fps_rows(mine))
        _write(host / "shaping.csv", ShapingRow, shaping_rows(spec))
    write_summary(out / "summary.json", summary)


def _write(path: Path, row_type: type[Row], rows: Iterable[Row]) -> None:
    with closing(CsvLog(path, row_type)) as log:
        for row in rows:
            log.write(row)
