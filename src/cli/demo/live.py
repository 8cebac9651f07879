"""The live table of a run: what each client says of itself once a second."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.processes import Child
from moonjelly.types import Outcome

_COLUMNS = {
    "client": 8, "SLO": 3, "fps": 5, "ans/s": 5, "Mbit/s": 6, "variant": 9, "px": 3, "p99 ms": 6, "missed": 6,
    "how": 14,
}  # fmt: skip
"""Column to the width below which it is not squeezed."""


@dataclass
class StatusReader:
    """Collects the newest status line of each child that has a status pipe."""

    children: list[Child]
    latest: dict[str, dict[str, Any]] = field(default_factory=dict)
    _rest: dict[str, bytes] = field(default_factory=dict)

    def poll(self) -> None:
        """Take what has arrived; never blocks."""
        for child in self.children:
            if child.status is None:
                continue
            data = child.status.read()
            if not data:
                continue
            *lines, rest = (self._rest.get(child.name, b"") + data).split(b"\n")
            self._rest[child.name] = rest
            if lines:
                self.latest[child.name] = json.loads(lines[-1])


def table(title: str, latest: dict[str, dict[str, Any]], goals: dict[str, tuple[float, float]]) -> Table:
    """One row per client: bandwidth, variant, frame rate, p99 and misses so far.

    Args:
        title: above the table.
        latest: client name to its newest status line.
        goals: client name to (SLO in ms, frames per second).
    """
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column, width in _COLUMNS.items():
        justify: Literal["left", "right"] = "left" if column in ("client", "variant", "how") else "right"
        whole = column not in ("variant", "how")
        made.add_column(column, justify=justify, no_wrap=whole, overflow="ellipsis", min_width=width)
    for name, (slo_ms, fps) in goals.items():
        status = latest.get(name)
        if status is None:
            made.add_row(name, f"{slo_ms:g}", f"{fps:g}", *["-"] * 7)
            continue
        made.add_row(
            name,
            f"{slo_ms:g}",
            f"{fps:g}",
            f"{status['fps']:.1f}",
            _mbit(status["bandwidth_bps"]),
            str(status["variant"] or "-"),
            str(status["input_size"] or "-"),
            _late(status["p99_ms"], slo_ms),
            *_misses(status),
        )
    return made


def _mbit(rate_bps: float | None) -> str:
    return f"{rate_bps / 1e6:.1f}" if rate_bps else "-"


def _late(p99_ms: float | None, slo_ms: float) -> str:
    if p99_ms is None:
        return "-"
    return f"[red]{p99_ms:.0f}[/red]" if p99_ms > slo_ms else f"{p99_ms:.0f}"


def _misses(status: dict[str, Any]) -> tuple[str, str]:
    counts = {outcome.value.lower(): int(status[outcome.value.lower()]) for outcome in Outcome if outcome.is_miss}
    share = 100 * sum(counts.values()) / max(1, int(status["captured"]))
    return f"{share:.1f} %", ", ".join(f"{count} {name}" for name, count in counts.items() if count)
