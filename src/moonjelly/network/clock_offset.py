"""Clock offset between a client and the server: the only place where instants of two hosts meet.

A message cannot arrive before it was sent. So every exchange bounds the offset (server minus client) from both sides:
``replied - returned <= offset <= received - sent``. The intersection of these intervals, widened with age by the
largest drift that two clocks may have, always holds the true offset; its middle is exact where the fastest message
up and the fastest message down took equally long (NTP's assumption, RFC 5905, but over the best message of each
direction instead of the best exchange).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from moonjelly.network.exchange import Exchange
from moonjelly.units import ClientInstant, ServerInstant

MAX_DRIFT_PPM = 100.0
"""Two free-running quartz clocks of 50 ppm each."""


class ClockOffset(msgspec.Struct, frozen=True):
    """An estimate of ``server - client`` and its bound.

    Attributes:
        server_minus_client_ns: the estimate.
        bound_ns: the true offset is within ``+-`` this, whatever the asymmetry of the link.
    """

    server_minus_client_ns: int
    bound_ns: int

    def to_server(self, instant: ClientInstant) -> ServerInstant:
        """The same moment on the server's clock."""
        return ServerInstant(instant + self.server_minus_client_ns)


@dataclass(frozen=True, slots=True)
class OffsetState:
    """Interval that holds ``server - client``.

    Attributes:
        low_ns: no smaller than this, at ``low_at``.
        low_at: when the lower bound was measured.
        high_ns: no larger than this, at ``high_at``.
        high_at: when the upper bound was measured.
    """

    low_ns: int
    low_at: ClientInstant
    high_ns: int
    high_at: ClientInstant


def observe(state: OffsetState | None, exchange: Exchange) -> OffsetState:
    """Intersect with one exchange's interval.

    An interval that contradicts the state (a host was suspended, its clock stepped) replaces it.
    """
    now = exchange.returned
    fresh = OffsetState(-exchange.down_ns, now, exchange.up_ns, now)
    if state is None:
        return fresh
    low, high = _bounds_at(state, now)
    if fresh.low_ns > high or fresh.high_ns < low:
        return fresh
    if fresh.low_ns >= low:
        state = replace(state, low_ns=fresh.low_ns, low_at=now)
    if fresh.high_ns <= high:
        state = replace(state, high_ns=fresh.high_ns, high_at=now)
    return state


def estimate(state: OffsetState | None, now: ClientInstant) -> ClockOffset | None:
    """Offset and bound as of ``now``; ``None`` before the first exchange."""
    if state is None:
        return None
    low, high = _bounds_at(state, now)
    return ClockOffset((low + high) // 2, max(1, -(-(high - low) // 2)))


def captured_at_server(
    captured: ClientInstant, sent: ClientInstant, received: ServerInstant, offset: ClockOffset | None
) -> ServerInstant:
    """When a frame was captured, on the server's clock.

    It cannot be later than its reception less the time that it spent at the client; that bound is also the answer
    while the offset is unknown (the uplink time then counts as zero until the first exchange).
    """
    latest = ServerInstant(received - max(0, sent - captured))
    return latest if offset is None else min(latest, offset.to_server(captured))


def _bounds_at(state: OffsetState, now: ClientInstant) -> tuple[int, int]:
    low_slack = round(max(0, now - state.low_at) * MAX_DRIFT_PPM * 1e-6)
    high_slack = round(max(0, now - state.high_at) * MAX_DRIFT_PPM * 1e-6)
    return state.low_ns - low_slack, state.high_ns + high_slack
