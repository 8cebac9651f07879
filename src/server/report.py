"""What a server says of itself when it has stopped."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Any

import typer

from moonjelly.telemetry import SCHEMA_VERSION
from moonjelly.types import Outcome
from moonjelly.version import __version__
from server.config import ServerOptions
from server.core import Core
from server.core.sessions import Statistics
from server.logs import SUMMARY_FILE


def report(core: Core, options: ServerOptions, seconds: float) -> None:
    """Write ``summary.json`` beside the logs and print a few lines."""
    summary = summarise(core, seconds)
    (options.out / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    outcomes = ", ".join(f"{count} {name.lower()}" for name, count in summary["outcomes"].items() if count)
    clients = len(summary["clients"]) + summary["earlier_clients"]
    typer.echo(
        f"served {summary['frames']} frames of {clients} clients in {seconds:.0f} s: "
        f"{outcomes or 'none'}; logs in {options.out}"
    )


def summarise(core: Core, seconds: float) -> dict[str, Any]:
    """Counts of the whole run, and per client; of very many, the earliest are only in the counts of the run."""
    sessions = core.sessions
    clients = {
        str(session_id): {
            "name": statistics.name,
            "frames": statistics.frames,
            "bytes": statistics.bytes,
            "resumes": statistics.resumes,
            "outcomes": _counts(statistics.outcomes),
        }
        for session_id, statistics in sessions.history.items()
    }
    total = Statistics("all", outcomes=dict.fromkeys(Outcome, 0))
    for statistics in (sessions.earlier, *sessions.history.values()):
        total.add(statistics)
    return {
        "schema_version": SCHEMA_VERSION,
        "seconds": round(seconds, 3),
        "frames": total.frames,
        "outcomes": _counts(total.outcomes),
        "clients": clients,
        "earlier_clients": sessions.earlier_count,
        "plans": core.plans,
        "versions": {
            "moonjelly": __version__,
            "python": platform.python_version(),
            "grpcio": metadata.version("grpcio"),
        },
        "machine": {"system": platform.platform(), "cpus": os.cpu_count() or 0},
    }


def _counts(outcomes: dict[Outcome, int]) -> dict[str, int]:
    return {outcome.value: count for outcome, count in outcomes.items()}
