"""Uplink bandwidth: delivery rate with the queueing taken out.

A frame occupies the link from the moment at which it could start (sent plus the unloaded delay, or the end of the
frame before it, whichever is later) until its last byte arrives. Both ends of that interval are on the server's
clock, so neither the downlink, nor a queue, nor an idle gap, nor the clock offset enters.

The log of the rate is tracked by a scalar Kalman filter: the link walks (process noise), a short transfer is measured
worse than a long one (measurement noise from the jitter of probes), and without acknowledgements the variance grows,
which is the estimate's staleness.

A shaper or a radio scheduler may pass the first bytes after a pause at once (a token bucket). Reading a frame then as
``size / time`` overestimates the link, the more the smaller the frame. How many bytes are free cannot be read off one
frame, so one filter runs per assumed bucket size, and each counts by how well it has predicted the transfer times.
Frames of different sizes and frames sent back to back tell them apart.

A host that is short of processors reads late, and then several frames at once: the first of them seems slow, the others
seem to have taken no time. But nothing is read before it has arrived, so frames that waited for one another were never
*together* faster than the link. Such a frame raises the estimate no further than all of them together do, or than it
was before the first of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from moonjelly.network.exchange import Exchange
from moonjelly.network.round_trip import RoundTripState
from moonjelly.units import NS_PER_S, ClientInstant, ServerInstant

BUCKET_BYTES = (0.0, 1_500.0, 3_000.0, 4_500.0, 6_000.0, 8_000.0, 10_000.0, 12_500.0, 16_000.0, 20_000.0, 32_000.0)
"""Assumed bucket sizes, one filter each."""

WALK_PER_S = 0.08
"""Variance that the log rate gains per second: a part of the steps of LTE, WiFi and subway traces (.06 to .2)."""
STATIONARY_VARIANCE = 0.8
"""What is known of a link that was not heard for long: the spread of the traces about their median."""
_SHAPE_VARIANCE = 0.0005
"""A transfer never follows the rate exactly (headers, scheduling): 2 %."""
_GATE = 3.0
"""Standard deviations by which one frame may move the log rate at most."""
_GATE_OPENING = 0.5
"""Share of the squared surprise beyond the gate that is added to the variance."""
_LEAST_NOISE_NS = 100_000.0
"""No arrival is timed better."""
_NOISE_OF_USUAL = 1.5
"""Standard deviation of an exponential delay over its median; the mean would follow the few that are very late."""
_MIN_TRANSFER_NS = 50_000.0
"""Shorter transfers cannot be told from none."""
_FORGETTING = 0.002
"""Per frame: a bucket is a property of the route and stays for minutes."""
_WORST = 16.0
"""Squared standard deviations of being early beyond which a frame is just an outlier."""
_BUCKET_DOUBT = 1.0
"""Nats against any bucket at all, before a frame was seen; most links have none ..."""
_PRIOR_BUCKET_BYTES = 6_000.0
"""... and those that have one have a small one."""
_CREEP = 0.1
"""By which the log rate may rise per frame while frames do not leave the assumed bucket ..."""
_LOG_FASTEST = math.log(1e9)
"""... and up to where: 1 Gbit/s."""
_DEMAND_WINDOW_NS = 1.0 * NS_PER_S


@dataclass(frozen=True, slots=True)
class _Filter:
    """One filter under one assumed bucket.

    Attributes:
        bucket_bytes: assumed.
        log_rate: natural logarithm of bit/s.
        variance: of ``log_rate`` at the last update.
        level_bytes: left in the bucket at the end of the latest delivery.
        surprisal: negative log-likelihood of the transfer times under its predictions, slowly forgotten.
    """

    bucket_bytes: float
    log_rate: float
    variance: float
    level_bytes: float = 0.0
    surprisal: float = 0.0


@dataclass(frozen=True, slots=True)
class _Transfer:
    """What one delivery, or several that waited for one another, took of the link.

    Attributes:
        size_bytes: delivered.
        busy_ns: from when it could start to its arrival.
        idle_ns: of the link before that.
        elapsed_s: since the estimate was last improved.
        noise_ns: standard deviation of the arrival.
        demand_bps: what was delivered lately, this included.
    """

    size_bytes: int
    busy_ns: float
    idle_ns: float
    elapsed_s: float
    noise_ns: float
    demand_bps: float

    def and_then(self, other: _Transfer) -> _Transfer:
        """Both as one: ``other`` waited behind this."""
        return replace(
            other,
            size_bytes=self.size_bytes + other.size_bytes,
            busy_ns=self.busy_ns + other.busy_ns,
            idle_ns=self.idle_ns,
            elapsed_s=self.elapsed_s + other.elapsed_s,
        )


@dataclass(frozen=True, slots=True)
class _Backlog:
    """Deliveries of which each but the first waited for the one before it.

    Attributes:
        before: the filters before the first of them.
        transfer: all of them as one.
    """

    before: tuple[_Filter, ...]
    transfer: _Transfer


@dataclass(frozen=True)
class BandwidthState:
    """Estimate of one uplink. Made by :func:`observe`; what it amounts to is asked for many times, and kept.

    Attributes:
        filters: one per entry of ``BUCKET_BYTES``.
        last_received: end of the latest delivery.
        updated: when the estimate was last improved.
        demand_bps: what was delivered lately, smoothed over a second.
        backlog: the latest delivery and those that it waited behind.
    """

    filters: tuple[_Filter, ...]
    last_received: ServerInstant
    updated: ClientInstant
    demand_bps: float
    backlog: _Backlog

    @cached_property
    def bandwidth_bps(self) -> float:
        """The estimate: never below what the link has just carried."""
        return math.exp(self._mean_and_variance[0])

    @cached_property
    def bucket_bytes(self) -> float:
        """Bytes that seem to pass at once after a pause."""
        return sum(weight * item.bucket_bytes for weight, item in zip(self._weights, self.filters, strict=True))

    def deviation(self, now: ClientInstant) -> float:
        """Standard deviation of the natural logarithm of the rate, grown with the estimate's age."""
        age_s = max(0, now - self.updated) / NS_PER_S
        return math.sqrt(min(self._mean_and_variance[1] + WALK_PER_S * age_s, STATIONARY_VARIANCE))

    @cached_property
    def _weights(self) -> list[float]:
        """How far each filter is to be believed: its likelihood times the prior, which prefers small buckets."""
        losses = [item.surprisal + _doubt(item.bucket_bytes) for item in self.filters]
        least = min(losses)
        likelihoods = [math.exp(least - loss) for loss in losses]
        total = sum(likelihoods)
        return [likelihood / total for likelihood in likelihoods]

    @cached_property
    def _mean_and_variance(self) -> tuple[float, float]:
        """Of the log rate, over the filters: where they disagree and nothing tells them apart, that is uncertainty."""
        weighted = list(zip(self._weights, self.filters, strict=True))
        mean = sum(weight * item.log_rate for weight, item in weighted)
        variance = sum(weight * (item.variance + (item.log_rate - mean) ** 2) for weight, item in weighted)
        return mean, variance


def _doubt(bucket_bytes: float) -> float:
    return _BUCKET_DOUBT + bucket_bytes / _PRIOR_BUCKET_BYTES if bucket_bytes else 0.0


def observe(state: BandwidthState | None, exchange: Exchange, floor: RoundTripState) -> BandwidthState | None:
    """Take in one delivered message. Probes carry too little to measure and change nothing."""
    if exchange.is_probe:
        return state
    if state is None:
        return _first(exchange, floor)
    start = max(exchange.sent + floor.up_floor_ns + round(floor.usual_ns), state.last_received)
    transfer = _Transfer(
        exchange.size_bytes,
        busy_ns=max(_MIN_TRANSFER_NS, float(exchange.received - start)),
        idle_ns=float(start - state.last_received),
        elapsed_s=max(0, exchange.returned - state.updated) / NS_PER_S,
        noise_ns=max(_LEAST_NOISE_NS, _NOISE_OF_USUAL * floor.usual_ns),
        demand_bps=_smoothed_demand(state, exchange),
    )
    filters, backlog = _step_all(state.filters, transfer), _Backlog(state.filters, transfer)
    if transfer.idle_ns <= 0.0:
        backlog = _Backlog(state.backlog.before, state.backlog.transfer.and_then(transfer))
        filters = _borne_out(filters, state.filters, backlog)
    return BandwidthState(
        filters, max(state.last_received, exchange.received), exchange.returned, transfer.demand_bps, backlog
    )


def _step_all(filters: tuple[_Filter, ...], transfer: _Transfer) -> tuple[_Filter, ...]:
    plain = _step(filters[0], transfer, _LOG_FASTEST)
    # A bucket makes a link look faster than it is: no filter that assumes one has reason to creep past that without.
    return (plain, *(_step(item, transfer, plain.log_rate) for item in filters[1:]))


def _borne_out(after: tuple[_Filter, ...], earlier: tuple[_Filter, ...], backlog: _Backlog) -> tuple[_Filter, ...]:
    """``after`` one more delivery than ``earlier``, with rates no higher than the backlog as a whole allows.

    Where it allows less, the delivery was not timed, but read together with others: that says nothing of a bucket.
    """
    together = _step_all(backlog.before, backlog.transfer)
    limits = [max(first.log_rate, whole.log_rate) for first, whole in zip(backlog.before, together, strict=True)]
    timed = after[0].log_rate <= limits[0]
    return tuple(
        replace(
            stepped,
            log_rate=min(stepped.log_rate, limit),
            surprisal=stepped.surprisal if timed else item.surprisal,
        )
        for stepped, item, limit in zip(after, earlier, limits, strict=True)
    )


def _first(exchange: Exchange, floor: RoundTripState) -> BandwidthState:
    busy_ns = max(floor.jitter_ns, exchange.up_ns - floor.up_floor_ns)
    log_rate = math.log(exchange.size_bytes * 8.0 * NS_PER_S / busy_ns)
    variance = STATIONARY_VARIANCE / 2
    filters = tuple(_Filter(bucket, log_rate, variance) for bucket in BUCKET_BYTES)
    transfer = _Transfer(exchange.size_bytes, busy_ns, 0.0, 0.0, floor.jitter_ns, 0.0)
    return BandwidthState(filters, exchange.received, exchange.returned, 0.0, _Backlog(filters, transfer))


def _step(item: _Filter, transfer: _Transfer, most_log_rate: float) -> _Filter:
    """``most_log_rate``: up to which the rate may creep where nothing measures it."""
    size_bytes, busy_ns, noise_ns = transfer.size_bytes, transfer.busy_ns, transfer.noise_ns
    variance = min(item.variance + WALK_PER_S * transfer.elapsed_s, STATIONARY_VARIANCE)
    refill_bytes = math.exp(item.log_rate) * max(0.0, transfer.idle_ns) / NS_PER_S / 8.0
    free_bytes = min(item.bucket_bytes, item.level_bytes + refill_bytes)
    charged = size_bytes - free_bytes
    if charged < 0.2 * size_bytes:
        return _within_bucket(item, max(0.0, -charged), transfer, variance, most_log_rate)
    expected_ns = charged * 8.0 * NS_PER_S / math.exp(item.log_rate)
    surprise = math.log(expected_ns / max(busy_ns, noise_ns))
    # Jitter matters little to a transfer that was long, or should have been. Only what is left of the frame after the
    # free bytes is timed, so the bucket's own uncertainty counts the more the smaller that is.
    noise = (noise_ns / max(busy_ns, expected_ns)) ** 2
    noise += _SHAPE_VARIANCE * (1.0 + (size_bytes / charged - 1.0) ** 2)
    total = variance + noise
    limit = _GATE * math.sqrt(total)
    excess = max(0.0, abs(surprise) - limit)
    gain = variance / total
    # Density of the observed time under this assumption: log-normal about the prediction, with a heavy tail (Student's,
    # three degrees) towards late, since nothing arrives before it can but many things make it late.
    squared = surprise * surprise / total
    unlikely = 0.5 * min(squared, _WORST) if surprise > 0.0 else 2.0 * math.log1p(squared / 3.0)
    unlikely += 0.5 * math.log(2.0 * math.pi * total) + math.log(busy_ns)
    return _Filter(
        item.bucket_bytes,
        log_rate=item.log_rate + gain * math.copysign(min(abs(surprise), limit), surprise),
        # Beyond the gate: one late frame is noise, two are a new rate. The next one is believed.
        variance=min((1.0 - gain) * variance + _GATE_OPENING * excess * excess, STATIONARY_VARIANCE),
        level_bytes=0.0,
        surprisal=_remembered(item.surprisal, unlikely),
    )


def _within_bucket(
    item: _Filter, level_bytes: float, transfer: _Transfer, variance: float, most_log_rate: float
) -> _Filter:
    """Under this assumption (nearly) all of the frame was free: it says only that the link carries the demand.

    The rate creeps up as long as nothing contradicts it: larger frames will leave the bucket and measure it.
    """
    noise_ns, demand_bps = transfer.noise_ns, transfer.demand_bps
    unlikely = 2.0 * math.log1p(transfer.busy_ns / noise_ns) + math.log(noise_ns)  # a tail as heavy
    log_rate = max(item.log_rate, min(item.log_rate + _CREEP, most_log_rate))
    if demand_bps > 0.0:
        log_rate = max(log_rate, math.log(demand_bps))
    return _Filter(
        item.bucket_bytes,
        log_rate=min(log_rate, _LOG_FASTEST),
        variance=variance,
        level_bytes=level_bytes,
        surprisal=_remembered(item.surprisal, unlikely),
    )


def _remembered(surprisal: float, unlikely: float) -> float:
    return (1.0 - _FORGETTING) * surprisal + unlikely


def _smoothed_demand(state: BandwidthState, exchange: Exchange) -> float:
    gap_ns = max(1, exchange.received - state.last_received)
    weight = 1.0 - math.exp(-gap_ns / _DEMAND_WINDOW_NS)
    return state.demand_bps + weight * (exchange.size_bytes * 8.0 * NS_PER_S / gap_ns - state.demand_bps)
