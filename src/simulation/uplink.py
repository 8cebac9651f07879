"""One client's uplink: bytes in order at the trace's rate, and what TCP makes of an outage."""

from __future__ import annotations

import math

from moonjelly.units import NS_PER_S
from network_shaping.traces import Trace

PAYLOAD_SHARE = 0.957
"""Share of a shaped rate that TCP delivers as payload; the rest is headers."""
RETRANSMISSION_NS = NS_PER_S // 5
"""Linux's smallest retransmission timeout; it doubles with every try into the outage."""


class Uplink:
    """FIFO serialisation at a trace's rate.

    Bytes that meet an outage are lost and sent again: nothing moves before the first retransmission after the link has
    returned.

    Args:
        trace: rate over time; its zero is the simulation's zero.
        bucket_bytes: headers included, that an idle link saves up and passes at once (tbf's burst).
    """

    def __init__(self, trace: Trace, bucket_bytes: int = 0) -> None:
        self._trace = trace
        self._has_outages = not all(trace.rates_bps)
        self._bucket_bits = bucket_bytes * 8.0
        self._free_ns = 0
        self._used_bits = -self._bucket_bits

    def transmit(self, now_ns: int, size_bytes: int) -> int | None:
        """Hand over a message; returns when its last byte leaves the link, ``None`` if never."""
        start_ns = max(now_ns, self._free_ns)
        carried_bits = self._trace.delivered_bits(start_ns / NS_PER_S)
        saved_bits = min(max(0.0, carried_bits - self._used_bits), self._bucket_bits)
        left_bits = size_bytes * 8.0 / PAYLOAD_SHARE - saved_bits
        end_ns = self._finish_ns(start_ns, max(0.0, left_bits))
        if end_ns is not None:
            self._free_ns = end_ns
            self._used_bits = self._trace.delivered_bits(end_ns / NS_PER_S) + min(0.0, left_bits)
        return end_ns

    def reset(self, now_ns: int) -> None:
        """Forget what has not been sent: the client has opened a new channel."""
        self._free_ns = now_ns

    def is_up(self, now_ns: int) -> bool:
        """Whether the link carries anything."""
        return self._trace.rate_bps(now_ns / NS_PER_S) > 0.0

    def usable_ns(self, now_ns: int) -> int | None:
        """When something that is sent at ``now_ns`` in either direction first gets through; ``None``: never."""
        if not self._has_outages or self.is_up(now_ns):
            return now_ns
        up_s = self._trace.up_s(now_ns / NS_PER_S)
        return None if math.isinf(up_s) else _retried_ns(now_ns, up_s)

    def _finish_ns(self, start_ns: int, size_bits: float) -> int | None:
        if self._has_outages:
            usable_ns = self.usable_ns(start_ns)
            if usable_ns is None:
                return None
            start_ns = usable_ns
            while (outage_s := self._outage_within(start_ns, size_bits)) is not None:
                sent_bits = self._trace.delivered_bits(outage_s) - self._trace.delivered_bits(start_ns / NS_PER_S)
                size_bits -= min(sent_bits, size_bits)
                up_s = self._trace.up_s(outage_s)
                start_ns = _retried_ns(round(outage_s * NS_PER_S), up_s)
        end_s = self._trace.finish_s(start_ns / NS_PER_S, size_bits)
        return None if math.isinf(end_s) else max(start_ns, round(end_s * NS_PER_S))

    def _outage_within(self, start_ns: int, size_bits: float) -> float | None:
        """Where the next outage cuts a transfer that begins at ``start_ns``."""
        start_s = start_ns / NS_PER_S
        end_s = self._trace.finish_s(start_s, size_bits)
        edge_s = self._trace.next_change_s(start_s)
        while edge_s < end_s:
            if self._trace.rate_bps(edge_s + 1e-9) == 0.0:
                return edge_s
            edge_s = self._trace.next_change_s(edge_s + 1e-9)
        return None


def _retried_ns(lost_ns: int, up_s: float) -> int:
    """The first retransmission of what was lost at ``lost_ns`` that meets a link up since ``up_s``."""
    wait_ns, timeout_ns, up_ns = 0, RETRANSMISSION_NS, math.ceil(up_s * NS_PER_S)
    while lost_ns + wait_ns < up_ns:
        wait_ns += timeout_ns
        timeout_ns *= 2
    return lost_ns + wait_ns
