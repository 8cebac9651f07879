"""One tidy table for all runs of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from experiment_manager.runner import ATTEMPT_FILE, read_attempt
from moonjelly.telemetry import read_record

COUNTS = (
    "frames_captured", "frames_sent", "on_time", "late", "skipped", "rejected", "dropped", "lost", "failed",
    "longest_miss_burst",
)  # fmt: skip
FIGURES = (*COUNTS, "miss_rate", "f1", "effective_f1", "effective_accuracy")
LATENCIES = tuple(f"latency_{name}_ms" for name in ("p50", "p90", "p99", "max"))
COLUMNS = (
    "run", "state", "reason", "trace", "policy", "source", "setting", "clients", "repetition", "seed", "client",
    "slo_ms", "fps", *FIGURES, *LATENCIES,
)  # fmt: skip


def rows_of(run: dict[str, Any], summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per client of a run and one, ``client`` = ``all``, for the whole run."""
    shared = _shared(run)
    rows = []
    for name, part in [("all", summary), *((str(part["client_id"]), part) for part in summary["clients"])]:
        latency = {f"latency_{key}_ms": value for key, value in part["latency_ms"].items()}
        goals = {"slo_ms": part.get("slo_ms"), "fps": part.get("fps")}
        rows.append({**shared, "client": name, **goals, **{key: part[key] for key in FIGURES}, **latency})
    return rows


def _shared(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": run["name"],
        "state": run["state"],
        "reason": run["reason"],
        "trace": run["trace"],
        "policy": run["policy"],
        "source": run["source"],
        "setting": run["setting"],
        "clients": len(run["devices"]),
        "repetition": run["repetition"],
        "seed": run["seed"],
    }


def collect_table(out: Path) -> pd.DataFrame:
    """The table of every finished run below ``out``; failed and starved runs have a row without figures.

    Raises:
        SchemaError: another version of moonjelly wrote what is there.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(out.rglob(ATTEMPT_FILE)):
        if any(part.startswith("attempt-") for part in path.relative_to(out).parts):
            continue
        run = read_attempt(path)
        summary = path.with_name("summary.json")
        if run["state"] == "done" and summary.exists():
            rows.extend(rows_of(run, read_record(summary)))
        else:
            rows.append({**_shared(run), "client": "all"})
    # A run without figures must not turn the counts of all others into fractions.
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def write_table(out: Path) -> list[Path]:
    """Write ``runs.csv`` and ``runs.parquet`` into ``out``."""
    table = collect_table(out)
    paths = [out / "runs.csv", out / "runs.parquet"]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1], index=False)
    return paths
