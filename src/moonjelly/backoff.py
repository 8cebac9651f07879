"""Bounded reconnect back-off as a pure step."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from ``first_s`` to ``limit_s``; the next delay is a share of that, so that clients do not return as one.

    Attributes:
        attempts: failures so far.
    """

    first_s: float = 0.05
    limit_s: float = 1.0
    attempts: int = 0

    def failed(self) -> Backoff:
        """After one more failure."""
        return replace(self, attempts=self.attempts + 1)

    def delay_s(self, share: float) -> float:
        """Seconds to wait before the next attempt.

        Args:
            share: in [0, 1), drawn by the caller; the delay is between one half and the whole of the doubled value.
        """
        if self.attempts == 0:
            return 0.0
        whole = min(self.limit_s, self.first_s * 2.0 ** min(self.attempts - 1, 32))
        return whole * (0.5 + 0.5 * share)
