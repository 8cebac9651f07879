"""Running counts of one client."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from moonjelly.sdk.results import FrameResult
from moonjelly.types import Outcome

LATENCY_WINDOW = 1024
"""Latest answered frames that the live percentiles look at; logs hold all."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot.

    Attributes:
        captured: frames told to the client, whatever became of them, less those still in flight.
        sent: frames handed to the stream.
        outcomes: frames per outcome; sums to ``captured``.
        latency_p50_ms: over the latest answered frames, ``None`` before the first.
        latency_p99_ms: likewise.
        reconnects: times the stream was lost and came back.
        stray_results: answers to frames that had ended already (given up as lost).
    """

    captured: int
    sent: int
    outcomes: dict[Outcome, int]
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    reconnects: int
    stray_results: int

    @property
    def on_time(self) -> int:
        """Frames answered within their deadline."""
        return self.outcomes[Outcome.ON_TIME]

    @property
    def miss_rate(self) -> float:
        """1 - on time / captured; 0 before the first frame ended."""
        return 1.0 - self.on_time / self.captured if self.captured else 0.0


class Tally:
    """Counts outcomes as they happen.

    Attributes:
        reconnects: see :class:`Statistics`; counted by whoever notices.
        stray_results: likewise.
    """

    def __init__(self) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self._latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)
        self._sent = 0
        self.reconnects = 0
        self.stray_results = 0

    def add(self, result: FrameResult) -> None:
        """Count one ended frame."""
        self._outcomes[result.outcome] += 1
        self._sent += result.sent_ns is not None
        if result.latency_ms is not None and result.outcome in (Outcome.ON_TIME, Outcome.LATE):
            self._latencies.append(result.latency_ms)

    def snapshot(self) -> Statistics:
        """The counts as of now."""
        ordered = sorted(self._latencies)
        return Statistics(
            captured=self._outcomes.total(),
            sent=self._sent,
            outcomes={outcome: self._outcomes[outcome] for outcome in Outcome},
            latency_p50_ms=_percentile(ordered, 50.0),
            latency_p99_ms=_percentile(ordered, 99.0),
            reconnects=self.reconnects,
            stray_results=self.stray_results,
        )


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Nearest rank. Not numpy's, whose first call takes 100 ms of a client's event loop."""
    return ordered[math.ceil(percent / 100.0 * len(ordered)) - 1] if ordered else None
