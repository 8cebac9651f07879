"""How long a client takes from choosing what to send until it has the encoded frame in its hands."""

from __future__ import annotations

import math
from collections import deque

from moonjelly.units import NS_PER_S, ClientInstant, ns_to_ms

WINDOW = 32
"""Latest frames that are looked at ..."""
WINDOW_NS = 2 * NS_PER_S
"""... and no older ones: a client that skips frames because its host was busy must soon try again."""
PERCENT = 95.0
"""Of them are prepared in the time that is expected. A frame that is held up is late however short the mean is."""
_MOST_CHOICES = 8
"""Choices that may wait for their frame; a choice may also be without one."""


class Preparation:
    """Measures resizing, encoding, and the hand-over to other threads and back, which grows on a busy host."""

    def __init__(self) -> None:
        self._recent: deque[tuple[ClientInstant, float]] = deque(maxlen=WINDOW)
        self._chosen: dict[ClientInstant, ClientInstant] = {}

    def expected_ms(self, now: ClientInstant) -> float:
        """What the next frame will take at most, as far as the latest ones tell; 0 without any."""
        return self._percentile_ms(PERCENT, now)

    def likely_ms(self, now: ClientInstant) -> float:
        """The median of the latest frames: a stall that held up two of them does not show in it."""
        return self._percentile_ms(50.0, now)

    def _percentile_ms(self, percent: float, now: ClientInstant) -> float:
        """Nearest rank."""
        while self._recent and now - self._recent[0][0] > WINDOW_NS:
            self._recent.popleft()
        ordered = sorted(taken_ms for _, taken_ms in self._recent)
        return ordered[math.ceil(percent / 100.0 * len(ordered)) - 1] if ordered else 0.0

    def choose(self, captured: ClientInstant, now: ClientInstant) -> None:
        """It was decided to send the frame captured at ``captured``."""
        self._chosen[captured] = now
        if len(self._chosen) > _MOST_CHOICES:
            del self._chosen[next(iter(self._chosen))]

    def finish(self, captured: ClientInstant, now: ClientInstant, encode_ms: float) -> None:
        """That frame is encoded; one that nobody chose, by another program, took its ``encode_ms``."""
        chosen = self._chosen.pop(captured, None)
        self._recent.append((now, encode_ms if chosen is None else ns_to_ms(now - chosen)))
