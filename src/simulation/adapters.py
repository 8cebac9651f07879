"""How a client estimates its link and decides what to send: moonjelly's way, and Jellyfish's to compare with."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Protocol

from moonjelly import network, outage
from moonjelly.adaptation import PlanView, Send, Skip, SkipReason, Stream, Unacknowledged
from moonjelly.network import ClockOffset, ErrorBasedFilter, Exchange
from moonjelly.sender import Sender
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant

MAX_OUTSTANDING = 32
"""Frames that a Jellyfish client keeps in flight at most."""
ASSUMED_BPS = 10e6
"""Uplink that a Jellyfish client reports before its first measurement."""


class Adapter(Protocol):
    """The deciding part of one client."""

    def choose(self, captured: ClientInstant, now: ClientInstant, probing: bool = True) -> Send | Skip:
        """What to do with a frame; ``probing``: see :func:`moonjelly.adaptation.decide`."""
        ...

    def keeps(self, reason: SkipReason) -> bool:
        """Whether a frame that is not sent for ``reason`` stays on hand."""
        ...

    def sent(
        self,
        captured: ClientInstant,
        input_size: int,
        quality: int,
        size_bytes: int,
        now: ClientInstant,
        encode_ms: float,
    ) -> None:
        """A frame that was encoded in ``encode_ms`` has been handed to the stream; acknowledged in this order."""
        ...

    def acknowledged(self, exchange: Exchange) -> None:
        """The oldest unacknowledged frame has been acknowledged."""
        ...

    def pinged(self, now: ClientInstant) -> None:
        """A ping has been handed to the stream."""
        ...

    def ponged(self, exchange: Exchange) -> None:
        """A ping has been answered."""
        ...

    def answered(self, next_variant: int, outcome: Outcome) -> None:
        """An answer says how a frame has ended, and what to size the next ones for."""
        ...

    def planned(self, view: PlanView) -> None:
        """The server tells the client's place in the plan."""
        ...

    @property
    def next_look(self) -> ClientInstant | None:
        """When :meth:`silent` is next due; ``None``: not before something else is sent."""
        ...

    def silent(self, now: ClientInstant) -> bool:
        """Whether the link must be taken to be gone; then a new channel is opened."""
        ...

    def retry_ms(self, gone_ms: float, now: ClientInstant) -> float:
        """From one attempt to open a channel to the next, ``gone_ms`` after the last one was given up."""
        ...

    def reset(self) -> None:
        """The channel is gone, and all that was unacknowledged."""
        ...

    def report(self, now: ClientInstant) -> tuple[float, float, ClockOffset | None]:
        """Bandwidth (bit/s), round trip (ms) and clock offset, as a frame carries them."""
        ...


class AdaptiveClient:
    """The library's :class:`~moonjelly.sender.Sender`, as the SDK's session uses it; pings carry no padding."""

    def __init__(self, stream: Stream, view: PlanView) -> None:
        self._stream = stream
        self._view = view
        self._sender = Sender(stream.slo_ms)
        self._in_flight: deque[Unacknowledged] = deque()
        self._unanswered_pings = 0

    def choose(self, captured: ClientInstant, now: ClientInstant, probing: bool = True) -> Send | Skip:
        """See :class:`Adapter`."""
        return self._sender.choose(self._stream, self._view, self._in_flight, captured, now, probing)

    def keeps(self, reason: SkipReason) -> bool:
        """See :class:`Adapter`."""
        return reason.may_pass

    def sent(
        self,
        captured: ClientInstant,
        input_size: int,
        quality: int,
        size_bytes: int,
        now: ClientInstant,
        encode_ms: float,
    ) -> None:
        """See :class:`Adapter`."""
        self._sender.encoded(input_size, quality, size_bytes, captured, now, encode_ms)
        self._in_flight.append(Unacknowledged(size_bytes, now))
        self._sender.asked(self._sender.estimate(now), self._in_flight, now)

    def acknowledged(self, exchange: Exchange) -> None:
        """See :class:`Adapter`."""
        self._in_flight.popleft()
        self._hear(exchange)

    def pinged(self, now: ClientInstant) -> None:
        """See :class:`Adapter`."""
        self._unanswered_pings += 1
        self._sender.asked(self._sender.estimate(now), self._in_flight, now)

    def ponged(self, exchange: Exchange) -> None:
        """See :class:`Adapter`."""
        self._unanswered_pings -= 1
        self._hear(exchange)

    def answered(self, next_variant: int, outcome: Outcome) -> None:
        """See :class:`Adapter`."""
        self._sender.answered(outcome)
        self._view = replace(self._view, variant=next_variant)

    def planned(self, view: PlanView) -> None:
        """See :class:`Adapter`."""
        self._view = view

    @property
    def next_look(self) -> ClientInstant | None:
        """See :class:`Adapter`."""
        return self._sender.next_look

    def silent(self, now: ClientInstant) -> bool:
        """See :class:`Adapter`."""
        return self._sender.silent(now)

    def retry_ms(self, gone_ms: float, now: ClientInstant) -> float:
        """See :class:`Adapter`."""
        return self._sender.retry_ms(gone_ms, now)

    def reset(self) -> None:
        """See :class:`Adapter`."""
        self._in_flight.clear()
        self._sender.stop()
        self._unanswered_pings = 0

    def report(self, now: ClientInstant) -> tuple[float, float, ClockOffset | None]:
        """See :class:`Adapter`."""
        link = self._sender.estimate(now)
        return link.bandwidth_bps, link.rtt_ms, link.offset

    def _hear(self, exchange: Exchange) -> None:
        self._sender.measured(exchange)
        self._sender.heard(exchange.returned, bool(self._in_flight or self._unanswered_pings))


class JellyfishClient:
    """Jellyfish's client: error-based filter, a fixed table of frame sizes, the largest size that the rate carries.

    It sends every frame, whatever waits in its uplink, up to 32 unacknowledged ones. Its clock is taken as right: the
    published code compares the clocks of two machines, which a simulation would only punish.
    """

    def __init__(self, stream: Stream, view: PlanView, rtt_ms: float, offset: ClockOffset) -> None:
        self._stream = stream
        self._view = view
        self._rtt_ms = rtt_ms
        self._offset = offset
        self._filter = ErrorBasedFilter()
        self._in_flight: deque[int] = deque()

    def choose(self, captured: ClientInstant, now: ClientInstant, probing: bool = True) -> Send | Skip:
        """See :class:`Adapter`."""
        if not self._view.placed:
            return Skip(SkipReason.REJECTED)
        if len(self._in_flight) >= MAX_OUTSTANDING:
            return Skip(SkipReason.QUEUE)
        rate_bps = self._filter.bandwidth_bps or ASSUMED_BPS
        variant = self._view.variant
        while variant > 0 and self._bytes(variant) * 8.0 * self._stream.fps >= rate_bps:
            variant -= 1
        return Send(variant, network.DEFAULT_QUALITY, self._bytes(variant), 0.0)

    def keeps(self, reason: SkipReason) -> bool:
        """A Jellyfish client drops what it does not send."""
        return False

    def sent(
        self,
        captured: ClientInstant,
        input_size: int,
        quality: int,
        size_bytes: int,
        now: ClientInstant,
        encode_ms: float,
    ) -> None:
        """See :class:`Adapter`."""
        self._in_flight.append(input_size)

    def acknowledged(self, exchange: Exchange) -> None:
        """See :class:`Adapter`."""
        self._filter = self._filter.step(exchange, self._in_flight.popleft())

    def pinged(self, now: ClientInstant) -> None:
        """Jellyfish does not ping."""

    def ponged(self, exchange: Exchange) -> None:
        """Jellyfish does not ping."""

    def answered(self, next_variant: int, outcome: Outcome) -> None:
        """See :class:`Adapter`."""
        self._view = replace(self._view, variant=next_variant)

    def planned(self, view: PlanView) -> None:
        """See :class:`Adapter`."""
        self._view = view

    @property
    def next_look(self) -> ClientInstant | None:
        """Jellyfish does not look."""
        return None

    def silent(self, now: ClientInstant) -> bool:
        """Jellyfish gives no channel up."""
        return False

    def retry_ms(self, gone_ms: float, now: ClientInstant) -> float:
        """Never asked for."""
        return outage.MAX_RETRY_MS

    def reset(self) -> None:
        """See :class:`Adapter`."""
        self._in_flight.clear()

    def report(self, now: ClientInstant) -> tuple[float, float, ClockOffset | None]:
        """See :class:`Adapter`."""
        return self._filter.bandwidth_bps or ASSUMED_BPS, self._rtt_ms, self._offset

    def _bytes(self, variant: int) -> float:
        return network.prior_bytes(self._stream.input_sizes[variant])
