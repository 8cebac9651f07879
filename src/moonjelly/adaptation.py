"""What a client sends next, and what a server asks for next: pure functions of plan, link and queue.

A client's uplink queue cannot be called back and eats the deadline of every later frame. So a frame is sent only if, on
a cautious reading of the link, it arrives early enough for the server to answer in time behind everything that is
still unacknowledged. As the link gets worse the client gives up, in this order: input size (down to the zoo's
smallest variant), JPEG quality, frame rate (frames are skipped). It returns the same way as soon as the
acknowledgements show room, at most doubling the bytes of a frame per acknowledged one, so that a wrong belief costs
one frame.

A frame that is smaller than the input of the variant that runs it is allowed: the server enlarges it, and the frame
itself says which variant it was sized for.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from moonjelly.network import DEFAULT_QUALITY, FrameSizes, LinkEstimate, left_ms
from moonjelly.units import ClientInstant, ns_to_ms, transfer_ms

REDUCED_QUALITIES = (75, 60, 45, 30)
"""Tried in this order once the size is at its smallest."""
CAUTION = 1.5
"""Standard deviations by which bandwidth is taken below, and sizes above, their estimates."""
UTILISATION = 0.75
"""Share of the (cautious) link that frames at the nominal rate may fill."""
GROWTH = 2.0
"""A frame has at most this many times the bytes of the largest one delivered lately, or is one step above it."""
PROVEN_SLACK = 1.2
"""Frames of one size differ: this close to a size counts as having delivered it."""
LATENCY_FACTOR = 2.0
"""One batch running and one waiting (Jellyfish, section III): of a server that does not say otherwise."""
FALLBACK_INFER_MS = 10.0
"""What a server in a hurry needs at most, with the fastest variant that it has loaded."""
STALLED_AFTER_MS = 300.0
PROBE_AFTER_MS = 500.0
MAX_UNACKNOWLEDGED_BYTES = 1 << 20
PADDING_BYTES = 8_000
"""Of a ping that tells bucket and rate apart: a little more than most buckets hold."""
PADDING_EVERY_MS = 1_000.0
PADDING_SHARE = 0.05
"""Of the deadline, that a padded ping may take from a frame behind it."""


class SkipReason(enum.Enum):
    """Why a frame was not sent; the value is the text of the log."""

    REJECTED = "the client has no place in the plan"
    OUTAGE = "link outage"
    STALLED = "the link does not answer"
    QUEUE = "behind the unacknowledged frames it cannot arrive in time"
    DEADLINE = "it cannot arrive in time"
    UNPROVEN = "waiting for the first acknowledgement of a link that is not known yet"

    @property
    def may_pass(self) -> bool:
        """Whether the link can lift it while the frame still has time; then it stays on hand."""
        return self not in (SkipReason.REJECTED, SkipReason.DEADLINE)


@dataclass(frozen=True, slots=True)
class Stream:
    """What a client's stream needs.

    Attributes:
        slo_ms: end-to-end deadline, capture to result.
        fps: nominal frame rate.
        input_sizes: side in pixels per variant of the group's zoo, in zoo order (increasing accuracy and cost).
    """

    slo_ms: float
    fps: float
    input_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanView:
    """What the client knows of the plan, from ``PlanUpdate`` and ``Result.next_variant``.

    Attributes:
        placed: whether the plan has a place for this client.
        variant: index to size frames for, at most.
        infer_ms: profiled p99 of the planned variant at the planned batch.
        overhead_ms: the server's own share beside waiting and inference.
        latency_factor: batches that a frame waits for, its own included, as the server plans.
    """

    placed: bool
    variant: int
    infer_ms: float
    overhead_ms: float
    latency_factor: float = LATENCY_FACTOR


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """A frame that was handed to the stream and not acknowledged yet."""

    size_bytes: int
    sent: ClientInstant


@dataclass(frozen=True, slots=True)
class Send:
    """Encode for ``variant`` at ``jpeg_quality`` and send.

    Attributes:
        variant: index of the variant to size the frame for.
        jpeg_quality: 1..100.
        expected_bytes: what it will probably weigh.
        arrives_in_ms: from now to its complete arrival at the server.
    """

    variant: int
    jpeg_quality: int
    expected_bytes: float
    arrives_in_ms: float


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not send this frame."""

    reason: SkipReason


def stalled(link: LinkEstimate, in_flight: Sequence[Unacknowledged], now: ClientInstant) -> bool:
    """Whether answers are overdue, so that nothing is added to the queue.

    A link that was never heard is not judged: connecting has its own time-out. When it is gone,
    :mod:`moonjelly.outage` says.
    """
    if not in_flight or math.isinf(link.age_ms):
        return False
    oldest = in_flight[0]
    expected_ms = transfer_ms(oldest.size_bytes, link.cautious_bps()) if link.known else 0.0
    overdue_ms = ns_to_ms(now - oldest.sent) - link.rtt_ms - expected_ms
    return min(overdue_ms, link.age_ms) > STALLED_AFTER_MS


def decide(
    stream: Stream,
    plan: PlanView,
    link: LinkEstimate,
    in_flight: Sequence[Unacknowledged],
    sizes: FrameSizes,
    captured: ClientInstant,
    now: ClientInstant,
    encode_ms: float = 0.0,
    likely_encode_ms: float | None = None,
    margin_ms: float = 0.0,
    probing: bool = True,
) -> Send | Skip:
    """Choose what to do with the frame captured at ``captured``.

    Args:
        stream: the client's needs.
        plan: as last heard from the server.
        link: estimate as of ``now``.
        in_flight: unacknowledged frames, oldest first.
        sizes: learnt frame sizes.
        captured: when the frame was captured.
        now: the present.
        encode_ms: time that resizing and encoding it takes at most, as far as is known.
        likely_encode_ms: that it takes as a rule; by default the same.
        margin_ms: kept free beside (:mod:`moonjelly.safety_margin`).
        probing: whether it may be sent to see what a link carries by which it would be late; not so a frame that has
            waited: what is left of it blocks a newer one.
    """
    if not plan.placed:
        return Skip(SkipReason.REJECTED)
    if stalled(link, in_flight, now):
        return Skip(SkipReason.STALLED)
    if not link.known:
        return _first_frame(stream, in_flight, sizes)
    moment = _Moment(link, in_flight, sizes, captured, now)
    rate_bps = _bounded_rate_bps(link.cautious_bps(CAUTION), link, in_flight, now, doubt=1.0)
    queue_ms = _queue_ms(in_flight, rate_bps, now, encode_ms)
    if sent := _sustained(stream, plan, moment, encode_ms, rate_bps, queue_ms, margin_ms):
        return sent
    if tried := _tried(stream, plan, moment, encode_ms if likely_encode_ms is None else likely_encode_ms, probing):
        return tried
    return Skip(SkipReason.QUEUE if queue_ms > 0.0 else SkipReason.DEADLINE)


def unacknowledged_ms(link: LinkEstimate, in_flight: Sequence[Unacknowledged]) -> float:
    """What the link, as it was measured last, takes for all that is unacknowledged; 0 where it is not known."""
    return sum(transfer_ms(frame.size_bytes, link.bandwidth_bps) for frame in in_flight) if link.known else 0.0


def padding_bytes(stream: Stream, link: LinkEstimate, in_flight: Sequence[Unacknowledged]) -> int:
    """How many bytes the next ping should carry.

    Where all frames have one size and none follows another closely, a link with a bucket looks like a faster one
    without. Something that hardly leaves the bucket tells them apart: between large frames it takes the time of a
    ping, or of all its bytes. Ask at most every ``PADDING_EVERY_MS``, so that other pings go on to measure the delay.
    """
    if in_flight or not link.known:
        return 0
    affordable = transfer_ms(PADDING_BYTES, link.cautious_bps()) <= PADDING_SHARE * stream.slo_ms
    return PADDING_BYTES if affordable else 0


def next_variant(
    planned: int, budget_ms: Sequence[float], infer_ms: float, latency_factor: float = LATENCY_FACTOR
) -> int:
    """What a server asks of a client now: the planned variant, lowered at once to what the link and the time allow.

    Never above the plan. The device runs the planned variant whatever the frame's size, so ``infer_ms`` is that
    variant's; a smaller frame only saves network time.

    Args:
        planned: variant index of the client's device.
        budget_ms: :func:`moonjelly.network.budgets` with the present bandwidth, per variant.
        infer_ms: of the planned variant at the planned batch.
        latency_factor: batches that a frame waits for, its own included.
    """
    needed_ms = latency_factor * infer_ms
    return next((variant for variant in range(planned, 0, -1) if budget_ms[variant] >= needed_ms), 0)


def _first_frame(stream: Stream, in_flight: Sequence[Unacknowledged], sizes: FrameSizes) -> Send | Skip:
    if in_flight:
        return Skip(SkipReason.UNPROVEN)
    return Send(0, DEFAULT_QUALITY, sizes.expected_bytes(stream.input_sizes[0]), 0.0)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a frame meets.

    Attributes:
        link: estimate as of ``now``.
        in_flight: unacknowledged frames, oldest first.
        sizes: learnt frame sizes.
        captured: when it was captured.
        now: the present.
    """

    link: LinkEstimate
    in_flight: Sequence[Unacknowledged]
    sizes: FrameSizes
    captured: ClientInstant
    now: ClientInstant

    @property
    def room_bytes(self) -> int:
        """That may still be sent unacknowledged."""
        return MAX_UNACKNOWLEDGED_BYTES - sum(frame.size_bytes for frame in self.in_flight)

    def left_ms(self, stream: Stream, plan: PlanView, encode_ms: float) -> float:
        """Of its deadline for uplink, waiting and inference, if encoding it takes ``encode_ms``; as plans count it."""
        preparation_ms = ns_to_ms(self.now - self.captured) + encode_ms
        return left_ms(stream.slo_ms, preparation_ms, self.link.rtt_ms, plan.overhead_ms) - self.link.jitter_ms


def _sustained(
    stream: Stream,
    plan: PlanView,
    moment: _Moment,
    encode_ms: float,
    rate_bps: float,
    queue_ms: float,
    margin_ms: float,
) -> Send | None:
    """The largest frame that a link of ``rate_bps`` carries in time, behind ``queue_ms``, and at the nominal rate."""
    link, sizes, room_bytes = moment.link, moment.sizes, moment.room_bytes
    most_wait_ms = moment.left_ms(stream, plan, encode_ms) - margin_ms - plan.latency_factor * plan.infer_ms
    for variant, quality in _ladder(stream, plan):
        step_before = sizes.expected_bytes(stream.input_sizes[max(0, variant - 1)])
        size = sizes.expected_bytes(stream.input_sizes[variant], quality)
        likely = size * math.exp(CAUTION * sizes.spread)
        wait_ms = queue_ms + transfer_ms(likely, rate_bps)
        carried = likely * 8.0 * stream.fps <= UTILISATION * rate_bps
        proven = size <= GROWTH * link.proven_bytes or step_before <= PROVEN_SLACK * link.proven_bytes
        if carried and proven and likely <= room_bytes and wait_ms <= most_wait_ms:
            return Send(variant, quality, size, encode_ms + wait_ms + link.rtt_ms / 2)
    return None


def _tried(stream: Stream, plan: PlanView, moment: _Moment, encode_ms: float, probing: bool) -> Send | None:
    """The smallest frame, if it may make it; a link that does not carry all of them is sent those that do.

    Skipping is a sure miss and this frame is small, so everything is taken as it well may be: the likely rate, an
    overdue acknowledgement that comes any moment, a server that falls back to a fast variant, an encoder without the
    stall that held up the last frames (``encode_ms``).
    """
    link, in_flight = moment.link, moment.in_flight
    rate_bps = _bounded_rate_bps(link.bandwidth_bps, link, in_flight, moment.now, doubt=0.0)
    variant, quality = _ladder(stream, plan)[-1]
    size = moment.sizes.expected_bytes(stream.input_sizes[variant], quality)
    wait_ms = _queue_ms(in_flight, rate_bps, moment.now, encode_ms) + transfer_ms(size, rate_bps)
    needed_ms = wait_ms + min(plan.infer_ms, FALLBACK_INFER_MS)
    in_time = needed_ms <= moment.left_ms(stream, plan, encode_ms) and size <= moment.room_bytes
    # What is believed of a link that carries nothing is soon out of date: now and then a frame is sent to see.
    if in_time or (probing and not in_flight and link.measured_age_ms > PROBE_AFTER_MS):
        return Send(variant, quality, size, encode_ms + wait_ms + link.rtt_ms / 2)
    return None


def _ladder(stream: Stream, plan: PlanView) -> list[tuple[int, int]]:
    top = min(plan.variant, len(stream.input_sizes) - 1)
    return [(variant, DEFAULT_QUALITY) for variant in range(top, -1, -1)] + [(0, q) for q in REDUCED_QUALITIES]


def _bounded_rate_bps(
    rate_bps: float, link: LinkEstimate, in_flight: Sequence[Unacknowledged], now: ClientInstant, doubt: float
) -> float:
    """``rate_bps``, and less once the acknowledgement of the oldest frame is overdue.

    This shows a drop before any acknowledgement can. How much of that frame is still to come is unknown: a link may
    have dropped by any factor, and then the best guess is that the frame needs as long again as it has been on its way
    already. It is taken to need ``doubt`` times that.
    """
    rate_bps = max(1.0, rate_bps)
    if in_flight:
        oldest = in_flight[0]
        waited_ms = ns_to_ms(now - oldest.sent) - link.rtt_ms - 2.0 * link.jitter_ms
        if waited_ms > transfer_ms(oldest.size_bytes, rate_bps):
            rate_bps = oldest.size_bytes * 8_000.0 / (waited_ms * (1.0 + doubt))
    return rate_bps


def _queue_ms(in_flight: Sequence[Unacknowledged], rate_bps: float, now: ClientInstant, encode_ms: float) -> float:
    """How long the next frame, sent in ``encode_ms``, waits for those before it."""
    free_ms = -math.inf
    for frame in in_flight:
        free_ms = max(ns_to_ms(frame.sent - now), free_ms) + transfer_ms(frame.size_bytes, rate_bps)
    return max(0.0, free_ms - encode_ms)
