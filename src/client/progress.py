"""Live figures of one client: a status line and a row of ``fps.csv`` per second."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from moonjelly.sdk import AsyncClient, FrameResult
from moonjelly.telemetry import FpsRow
from moonjelly.types import Outcome

Show = Callable[[str], None]
"""Shows a line of progress to a person."""


class Progress:
    """Counts frames between two :meth:`second` calls.

    Args:
        client_id: for rows and lines.
    """

    def __init__(self, client_id: int) -> None:
        self._client_id = client_id
        self._captured = 0
        self._sent = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._latest: FrameResult | None = None
        self._total_captured = 0

    def captured(self) -> None:
        """One more frame was captured."""
        self._captured += 1
        self._total_captured += 1

    def ended(self, result: FrameResult) -> None:
        """One more frame has its outcome."""
        self._outcomes[result.outcome] += 1
        self._sent += result.sent_ns is not None
        if result.sent_ns is not None:
            self._latest = result

    def second(self, now_ns: int) -> FpsRow:
        """The row of the second that ends now; starts the next one."""
        answered = self._outcomes[Outcome.ON_TIME] + self._outcomes[Outcome.LATE]
        row = FpsRow(now_ns, self._client_id, self._captured, self._sent, answered, self._outcomes[Outcome.ON_TIME])
        self._captured = self._sent = 0
        self._outcomes.clear()
        return row

    def status(self, client: AsyncClient, row: FpsRow, t_s: float) -> dict[str, Any]:
        """The status line: ``fps`` is frames answered in the second of ``row``, counts are since the start."""
        counts = client.statistics
        link = client.link
        latest = self._latest
        return {
            "client_id": self._client_id,
            "t_s": round(t_s, 2),
            "state": client.state.value,
            "bandwidth_bps": link.bandwidth_bps if link.known else None,
            "rtt_ms": link.rtt_ms if link.known else None,
            "variant": (latest.used_variant or latest.desired_variant) if latest else "",
            "input_size": latest.input_size if latest else None,
            "fps": float(row.answered),
            "p99_ms": counts.latency_p99_ms,
            "captured": self._total_captured,
            **{outcome.value.lower(): count for outcome, count in counts.outcomes.items()},
        }


def progress_line(latest: list[dict[str, Any]]) -> str:
    """What the newest status lines say together."""
    captured = sum(status["captured"] for status in latest)
    missed = sum(status[outcome.value.lower()] for status in latest for outcome in Outcome if outcome.is_miss)
    seconds = max((status["t_s"] for status in latest), default=0.0)
    share = 100.0 * missed / captured if captured else 0.0
    noun = "client" if len(latest) == 1 else "clients"
    return f"{seconds:.0f} s: {len(latest)} {noun}, {captured} frames captured, {share:.2f} % missed"


class LineWriter:
    """Writes JSON lines to an inherited descriptor and never waits for its reader."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor

    def write(self, line: dict[str, Any]) -> bool:
        """Write one line whole; false when the reader is gone or does not keep up."""
        if self._descriptor is None:
            return False
        try:
            # A pipe takes up to PIPE_BUF (4 KiB) at once or not at all.
            os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close the descriptor, but never standard output or error. Idempotent."""
        if self._descriptor is not None and self._descriptor > 2:
            os.close(self._descriptor)
        self._descriptor = None
