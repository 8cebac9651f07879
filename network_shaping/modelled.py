"""One client's stream over a modelled link: the real estimation and adaptation against a trace, without sockets.

What benchmarks, tests and simulations share. The link is :class:`~network_shaping.pacing.Pacer`, plus a fixed delay
and one-sided jitter each way; the two ends have clocks of their own.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from moonjelly import network
from moonjelly.adaptation import PADDING_EVERY_MS, PlanView, Send, Skip, Stream, Unacknowledged, decide, padding_bytes
from moonjelly.clock import ManualClock, SkewedClock
from moonjelly.network import Exchange, FrameSizes, LinkEstimate, LinkState
from moonjelly.units import NS_PER_S, ClientInstant, ServerInstant
from network_shaping.pacing import Pacer
from network_shaping.traces import Trace

_PING_EVERY_S = 0.5
_FIRST_PINGS_S = (0.0, 0.02, 0.04, 0.06, 0.08)
_WIRE_OVERHEAD_BYTES = 60
_TO_FRAME, _TO_PING, _ANSWER = range(3)


@dataclass(frozen=True, slots=True)
class LinkModel:
    """A link and the clocks at its ends.

    Attributes:
        trace: uplink rate; its outages stop the way back, too.
        burst_bytes: that pass at once after a pause.
        one_way_s: fixed delay in each direction.
        jitter_s: mean of the exponential extra delay of each message in each direction.
        offset_ns: server's clock less client's at time 0.
        drift_ppm: of the server's clock against the client's.
        seed: of the jitter.
    """

    trace: Trace
    burst_bytes: int = 0
    one_way_s: float = 0.005
    jitter_s: float = 0.0005
    offset_ns: int = 0
    drift_ppm: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What became of one captured frame.

    Attributes:
        captured_s: on the model's time, as all others here.
        decision: what the client decided.
        size_bytes: encoded; 0 when skipped.
        arrived_s: completely at the server; infinite when skipped or never.
        exchange: the frame and its ack.
        before: the estimate that the decision rested on.
        after: the estimate just after the ack; ``None`` without one.
        in_flight: unacknowledged frames at the decision.
    """

    captured_s: float
    decision: Send | Skip
    size_bytes: int
    arrived_s: float
    exchange: Exchange | None
    before: LinkEstimate
    after: LinkEstimate | None
    in_flight: int


@dataclass(slots=True)
class _Client:
    state: LinkState = field(default_factory=LinkState)
    sizes: FrameSizes = field(default_factory=FrameSizes)
    in_flight: list[tuple[int, Unacknowledged]] = field(default_factory=list)
    next_padding_s: float = 0.0


def drive(
    stream: Stream,
    plan: PlanView,
    link: LinkModel,
    encoded_bytes: Callable[[int, int, int], int],
    seconds: float,
) -> Iterator[FrameRecord]:
    """Run a client for ``seconds``; yields each frame when its ack has come, or at once when it was skipped.

    Args:
        stream: the client's needs.
        plan: held throughout.
        link: what it sends over.
        encoded_bytes: (frame number, input size, quality) to bytes.
        seconds: of captured frames.
    """
    world = _World(link)
    client = _Client()
    events: list[tuple[float, int, int, FrameRecord | Exchange | None]] = []
    for number in range(int(seconds * stream.fps)):
        heapq.heappush(events, (number / stream.fps + 0.1, number, _TO_FRAME, None))
    pings = [*_FIRST_PINGS_S, *np.arange(_PING_EVERY_S, seconds, _PING_EVERY_S)]
    for number, instant in enumerate(pings, start=len(events)):
        heapq.heappush(events, (float(instant), number, _TO_PING, None))
    while events:
        now_s, number, kind, cargo = heapq.heappop(events)
        if kind == _TO_PING:
            arrived, ping = world.exchange(now_s, _padding(stream, world, client, now_s))
            if arrived < math.inf:
                heapq.heappush(events, (world.seconds(ping.returned), number, _ANSWER, ping))
        elif kind == _TO_FRAME:
            record = _send(stream, plan, world, client, encoded_bytes, now_s, number)
            if record.exchange is None:
                yield record
            else:
                heapq.heappush(events, (world.seconds(record.exchange.returned), number, _ANSWER, record))
        elif isinstance(cargo, Exchange):
            client.state = network.observe(client.state, cargo)
        elif cargo is not None:
            yield _acknowledge(client, cargo, number)


class _World:
    """Link and clocks."""

    def __init__(self, link: LinkModel) -> None:
        self._link = link
        self._pacer = Pacer(link.trace, link.burst_bytes)
        self._random = np.random.default_rng(link.seed)
        self._client = ManualClock()
        self._server = SkewedClock(self._client, link.offset_ns, link.drift_ppm)
        self._last_arrival_s = 0.0
        self._last_return_s = 0.0

    def client_ns(self, time_s: float) -> ClientInstant:
        return ClientInstant(round(time_s * NS_PER_S))

    def seconds(self, instant: ClientInstant) -> float:
        return instant / NS_PER_S

    def server_ns(self, time_s: float) -> ServerInstant:
        self._client.instant_ns = round(time_s * NS_PER_S)
        return ServerInstant(self._server.now_ns())

    def exchange(self, sent_s: float, size_bytes: int) -> tuple[float, Exchange]:
        """Arrival at the server, and the four instants."""
        passed_s = self._pacer.reserve(sent_s, size_bytes + _WIRE_OVERHEAD_BYTES)
        if passed_s == math.inf:
            never = ClientInstant(1 << 62)
            return math.inf, Exchange(size_bytes, self.client_ns(sent_s), ServerInstant(0), ServerInstant(0), never)
        up_s, down_s = (self._link.one_way_s + self._random.exponential(self._link.jitter_s, 2)).tolist()
        self._last_arrival_s = max(self._last_arrival_s, passed_s + up_s)  # a stream keeps its order
        self._last_return_s = max(self._last_return_s, self._link.trace.up_s(self._last_arrival_s) + down_s)
        received = self.server_ns(self._last_arrival_s)
        return self._last_arrival_s, Exchange(
            size_bytes, self.client_ns(sent_s), received, received, self.client_ns(self._last_return_s)
        )


def _padding(stream: Stream, world: _World, client: _Client, now_s: float) -> int:
    if now_s < client.next_padding_s:
        return 0
    link = network.estimate(client.state, world.client_ns(now_s))
    padding = padding_bytes(stream, link, [frame for _, frame in client.in_flight])
    if padding:
        client.next_padding_s = now_s + PADDING_EVERY_MS / 1e3
    return padding


def _send(
    stream: Stream,
    plan: PlanView,
    world: _World,
    client: _Client,
    encoded_bytes: Callable[[int, int, int], int],
    now_s: float,
    number: int,
) -> FrameRecord:
    now = world.client_ns(now_s)
    before = network.estimate(client.state, now)
    waiting = [frame for _, frame in client.in_flight]
    decision = decide(stream, plan, before, waiting, client.sizes, now, now)
    if isinstance(decision, Skip):
        return FrameRecord(now_s, decision, 0, math.inf, None, before, None, len(waiting))
    input_size = stream.input_sizes[decision.variant]
    size = encoded_bytes(number, input_size, decision.jpeg_quality)
    client.sizes = network.observe_size(client.sizes, input_size, decision.jpeg_quality, size)
    client.in_flight.append((number, Unacknowledged(size, now)))
    arrived_s, exchange = world.exchange(now_s, size)
    known = exchange if arrived_s < math.inf else None
    return FrameRecord(now_s, decision, size, arrived_s, known, before, None, len(waiting))


def _acknowledge(client: _Client, record: FrameRecord, number: int) -> FrameRecord:
    assert record.exchange is not None
    client.in_flight = [item for item in client.in_flight if item[0] != number]
    client.state = network.observe(client.state, record.exchange)
    after = network.estimate(client.state, record.exchange.returned)
    return replace(record, after=after)
