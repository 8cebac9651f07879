"""When bytes may pass a shaped link: the decision, without sockets or clocks."""

from __future__ import annotations

from network_shaping.traces import Trace

_QUANTUM_S = 0.004
MIN_CHUNK_BYTES = 512
MAX_CHUNK_BYTES = 16_384


class Pacer:
    """A serial link whose rate follows a trace, with a token bucket of ``burst_bytes``.

    All times are seconds on the clock that ``trace`` goes by. Because the trace says what the rate will be, the end of
    every transfer is known when it begins, across any number of rate changes: a change is exact whatever the timers do.
    """

    def __init__(self, trace: Trace, burst_bytes: int = 0) -> None:
        self._trace = trace
        self._burst_bits = burst_bytes * 8.0
        self._free_bits = trace.delivered_bits(0.0)

    @property
    def trace(self) -> Trace:
        """What the rate follows."""
        return self._trace

    def follow(self, trace: Trace, now_s: float) -> None:
        """From ``now_s`` on the rate is that of ``trace``; what was reserved passes as was said."""
        ahead_bits = self._free_bits - self._trace.delivered_bits(now_s)
        self._trace = trace
        self._free_bits = trace.delivered_bits(now_s) + ahead_bits

    def chunk_bytes(self, now_s: float) -> int:
        """How much to take up at once: about 4 ms worth, so that streams of one link alternate."""
        return int(min(max(MIN_CHUNK_BYTES, self._trace.rate_bps(now_s) * _QUANTUM_S / 8.0), MAX_CHUNK_BYTES))

    def reserve(self, now_s: float, size_bytes: int) -> float:
        """Queue ``size_bytes`` that came at ``now_s`` behind what was reserved before.

        Returns when the last of them has passed; infinite on a trace of zeros.
        """
        carried = self._trace.delivered_bits(now_s)
        # Counted in bits that the link could have carried: what is unused is lost but for the bucket.
        self._free_bits = max(self._free_bits, carried - self._burst_bits) + size_bytes * 8.0
        if self._free_bits <= carried:
            return self._trace.up_s(now_s)
        return self._trace.up_s(self._trace.finish_s(now_s, self._free_bits - carried))
