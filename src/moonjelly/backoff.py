"""How long to wait before the next attempt at what failed, as a pure step."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from ``first_s`` to ``limit_s``; the next delay is a share of that, so that clients do not return as one.

    Attributes:
        attempts: failures in a row.
    """

    first_s: float = 0.05
    limit_s: float = 1.0
    attempts: int = 0

    def failed(self, held_s: float = 0.0) -> Backoff:
        """After one more failure.

        Args:
            held_s: how long it had worked before; after more than ``limit_s`` it is the first failure again.
        """
        return replace(self, attempts=1 if held_s > self.limit_s else self.attempts + 1)

    def delay_s(self, share: float) -> float:
        """Seconds to wait before the next attempt.

        Args:
            share: in [0, 1], drawn by the caller, 1 where nobody else returns; the delay is between one half and the
                whole of the doubled value.
        """
        if self.attempts == 0:
            return 0.0
        whole = min(self.limit_s, self.first_s * 2.0 ** min(self.attempts - 1, 32))
        return whole * (0.5 + 0.5 * share)
