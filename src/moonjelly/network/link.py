"""Everything that a client learns of its link, in one state and one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moonjelly.network import bandwidth, clock_offset, round_trip
from moonjelly.network.bandwidth import BandwidthState
from moonjelly.network.clock_offset import ClockOffset, OffsetState
from moonjelly.network.exchange import Exchange
from moonjelly.network.round_trip import RoundTripState
from moonjelly.units import NS_PER_S, ClientInstant, ns_to_ms


@dataclass(frozen=True, slots=True)
class LinkState:
    """State of a link's estimators. Start with ``LinkState()``; advance with :func:`observe`.

    Attributes:
        bandwidth: of the uplink filters; ``None``, as the next two, before their first sample.
        round_trip: of the windows of smallest delays.
        offset: of the bounds on the clock offset.
        heard: when the last answer came.
        proven_bytes: size of the largest frame delivered lately; fades with every later one.
    """

    bandwidth: BandwidthState | None = None
    round_trip: RoundTripState | None = None
    offset: OffsetState | None = None
    heard: ClientInstant | None = None
    proven_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """What is known of a link at one instant.

    Attributes:
        bandwidth_bps: uplink; 0: not known yet.
        deviation: standard deviation of the natural logarithm of ``bandwidth_bps``; grows while nothing is heard.
        bucket_bytes: bytes that seem to pass at once after a pause.
        proven_bytes: size of the largest frame delivered lately.
        rtt_ms: unloaded round trip; 0: not known yet.
        jitter_ms: typical excess of an unqueued message's delay.
        offset: clock offset; ``None`` before the first answer.
        age_ms: since the last answer of any kind; infinite before the first.
        measured_age_ms: since the bandwidth was last measured; infinite before the first time.
    """

    bandwidth_bps: float = 0.0
    deviation: float = math.sqrt(bandwidth.STATIONARY_VARIANCE)
    bucket_bytes: float = 0.0
    proven_bytes: float = 0.0
    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    offset: ClockOffset | None = None
    age_ms: float = math.inf
    measured_age_ms: float = math.inf

    @property
    def known(self) -> bool:
        """Whether any bandwidth was measured."""
        return self.bandwidth_bps > 0.0

    @property
    def confidence(self) -> float:
        """In (0, 1]: 1 is exact, near 0 says nothing; falls with age."""
        return math.exp(-2.0 * self.deviation)

    def cautious_bps(self, deviations: float = 1.0) -> float:
        """A rate that the link exceeds with the probability that ``deviations`` stands for (1: 84 %)."""
        return self.bandwidth_bps * math.exp(-deviations * self.deviation)


_PROVEN_FADE = 0.9
_PROVEN_FOR_NS = 2 * NS_PER_S


def observe(state: LinkState, exchange: Exchange) -> LinkState:
    """Take in one frame with its ack, or one ping with its pong.

    Order: as the server has read them (``received``). What comes after a frame that it waited for must find it known.
    """
    floor = round_trip.observe(state.round_trip, exchange)
    return LinkState(
        bandwidth.observe(state.bandwidth, exchange, floor),
        floor,
        clock_offset.observe(state.offset, exchange),
        exchange.returned,
        _proven(state, exchange),
    )


def estimate(state: LinkState, now: ClientInstant) -> LinkEstimate:
    """The link as of ``now``."""
    rate, trip = state.bandwidth, state.round_trip
    if trip is None or state.heard is None:
        return LinkEstimate()
    return LinkEstimate(
        bandwidth_bps=rate.bandwidth_bps if rate else 0.0,
        deviation=rate.deviation(now) if rate else math.sqrt(bandwidth.STATIONARY_VARIANCE),
        bucket_bytes=rate.bucket_bytes if rate else 0.0,
        proven_bytes=state.proven_bytes,
        rtt_ms=trip.rtt_ms,
        jitter_ms=trip.jitter_ns * 1e-6,
        offset=clock_offset.estimate(state.offset, now),
        age_ms=ns_to_ms(max(0, now - state.heard)),
        measured_age_ms=ns_to_ms(max(0, now - rate.updated)) if rate else math.inf,
    )


def _proven(state: LinkState, exchange: Exchange) -> float:
    """After two silent seconds the link is another one and its first frame counts alone."""
    if exchange.is_probe:
        return state.proven_bytes
    silent = state.heard is None or exchange.returned - state.heard > _PROVEN_FOR_NS
    return max(float(exchange.size_bytes), 0.0 if silent else _PROVEN_FADE * state.proven_bytes)
