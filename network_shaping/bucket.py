"""The token bucket of a tc-tbf link and the queue before it, whose length may follow the rate: pure."""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.errors import ConfigError

MIN_BURST_BYTES = 1_600
"""One packet with its headers: what is longer than the bucket never passes."""
MIN_QUEUE_BYTES = 3_200
MIN_LATENCY_MS = 1.0
DEFAULT_BURST_BYTES = 5_000
"""Three packets: 0.4 ms at 100 Mbit/s, which is what the kernel's timers need to hold the rate."""
DEFAULT_QUEUE_BYTES = 250_000
"""More than TCP keeps below its own queue, so that nothing is lost but in an outage."""
_LARGEST_LIMIT_BYTES = 2**32 - 1
"""tbf counts them in 32 bits."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What every link of an interface has.

    Attributes:
        burst_bytes: passed at once after a pause; constant, whatever the rate.
        queue_bytes: that may wait before the bucket.
        latency_ms: in place of ``queue_bytes``, as long as the rate takes for what may wait.
    """

    burst_bytes: int = DEFAULT_BURST_BYTES
    queue_bytes: int = DEFAULT_QUEUE_BYTES
    latency_ms: float | None = None

    @staticmethod
    def of(burst_bytes: int | None, queue_bytes: int | None, latency_ms: float | None) -> Bucket:
        """With the default for what is ``None``.

        Raises:
            ConfigError: the queue is limited in two ways.
        """
        if queue_bytes is not None and latency_ms is not None:
            raise ConfigError(
                f"a queue of {queue_bytes} bytes and one of {latency_ms:g} ms are asked for; "
                "give queue-bytes or latency-ms, not both"
            )
        burst = DEFAULT_BURST_BYTES if burst_bytes is None else burst_bytes
        return Bucket(burst, DEFAULT_QUEUE_BYTES if queue_bytes is None else queue_bytes, latency_ms)

    def limit_bytes(self, rate_bps: float) -> int:
        """tbf's ``limit`` at this rate, as tc computes it from ``latency``: rate x latency + burst.

        The burst is in it so that a packet finds room at any rate.
        """
        queue = self.queue_bytes if self.latency_ms is None else int(rate_bps / 8.0 * self.latency_ms / 1e3)
        return min(queue + self.burst_bytes, _LARGEST_LIMIT_BYTES)


DEFAULT = Bucket()
"""What a link has of which nothing is said."""
