"""Unloaded round trip: the smallest delays of the last seconds, so that queueing and a busy peer do not count."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moonjelly.network.exchange import Exchange
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant, ServerInstant, ns_to_ms

WINDOW_NS = 10 * NS_PER_S
"""A longer route shows after at most two windows, a shorter one at once."""
SETTLING_PINGS = 5
"""A new stream's first pings come quickly, so that delay and clock offset are known when the first frames go."""
_SETTLING_INTERVAL_NS = 20 * NS_PER_MS
_PING_INTERVAL_NS = 500 * NS_PER_MS
_JITTER_GAIN = 0.1
_JITTER_FLOOR_NS = 100_000.0
_USUAL_STEP = 1.1
"""Factor by which the median moves with every probe: up where the probe took longer, else down."""
_USUAL_FLOOR_NS = 20_000.0
_JITTER_CEILING_NS = 10.0 * NS_PER_MS


def ping_pause_ns(sent: int) -> int:
    """From one ping to the next, on a stream that has carried ``sent`` of them."""
    return _SETTLING_INTERVAL_NS if sent < SETTLING_PINGS else _PING_INTERVAL_NS


@dataclass(frozen=True, slots=True)
class RoundTripState:
    """Smallest one-way readings (each plus or minus the clock offset, which cancels in their sum).

    Attributes:
        window_start: of the present window.
        up_ns: smallest ``Exchange.up_ns`` of the present window.
        down_ns: smallest ``Exchange.down_ns`` of the present window.
        earlier_up_ns: of the window before.
        earlier_down_ns: of the window before.
        last_received: end of the latest delivery: what was sent before it waited in the queue.
        jitter_ns: smoothed excess of a probe's uplink delay over the floor.
        usual_ns: median of that excess: what most messages take beyond the floor, however late some are.
    """

    window_start: ClientInstant
    up_ns: int
    down_ns: int
    earlier_up_ns: int
    earlier_down_ns: int
    last_received: ServerInstant
    jitter_ns: float = 1.0 * NS_PER_MS
    usual_ns: float = 0.2 * NS_PER_MS

    @property
    def up_floor_ns(self) -> int:
        """Uplink delay without queueing, plus the clock offset."""
        return min(self.up_ns, self.earlier_up_ns)

    @property
    def rtt_ms(self) -> float:
        """Unloaded round trip in ms."""
        return max(0.0, ns_to_ms(self.up_floor_ns + min(self.down_ns, self.earlier_down_ns)))


def observe(state: RoundTripState | None, exchange: Exchange) -> RoundTripState:
    """Take the floors down with any exchange; only a probe that met an idle link may open a new window.

    Opening a window lets the floors rise. Frames say nothing about a longer route, since their delay holds their own
    transfer, and neither do probes that waited behind one.
    """
    up, down = exchange.up_ns, exchange.down_ns
    if state is None:
        return RoundTripState(exchange.returned, up, down, up, down, exchange.received)
    latest = max(state.last_received, exchange.received)
    jitter, usual = state.jitter_ns, state.usual_ns
    if exchange.is_probe and exchange.sent + state.up_floor_ns >= state.last_received:
        excess = min(max(0, up - state.up_floor_ns), _JITTER_CEILING_NS)
        jitter = max(_JITTER_FLOOR_NS, jitter + _JITTER_GAIN * (excess - jitter))
        usual = min(max(_USUAL_FLOOR_NS, usual * (_USUAL_STEP if excess > usual else 1.0 / _USUAL_STEP)), jitter)
        if exchange.returned - state.window_start > WINDOW_NS:
            return RoundTripState(exchange.returned, up, down, state.up_ns, state.down_ns, latest, jitter, usual)
    return replace(
        state,
        up_ns=min(state.up_ns, up),
        down_ns=min(state.down_ns, down),
        last_received=latest,
        jitter_ns=jitter,
        usual_ns=usual,
    )
