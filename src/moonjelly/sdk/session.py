"""What a client knows, without sockets, tasks or a clock: messages and instants in, messages and outcomes out.

Invariant: every frame that is begun or skipped ends in exactly one :class:`FrameResult`, whatever happens to the
connection. A frame in flight ends by its result, or as ``LOST`` when its deadline has passed while the connection was
down, when the server does not know it after a resume, or when its answer is :data:`ANSWER_GRACE_MS` overdue. What
arrives for a frame that has ended is a stray and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moonjelly import adaptation, network
from moonjelly.adaptation import OUTAGE_AFTER_MS, PlanView, Send, Stream, Unacknowledged
from moonjelly.errors import ProtocolError
from moonjelly.rpc import messages as wire
from moonjelly.sdk.preparation import Preparation
from moonjelly.sdk.results import EncodedFrame, FrameResult
from moonjelly.sdk.statistics import Statistics, Tally
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_MS, ClientInstant, ms_to_ns, ns_to_ms

ANSWER_GRACE_MS = 2000.0
"""How long past its deadline a result on a living stream still counts as late; then the frame is lost."""
PROBE_INTERVAL_NS = 1000 * NS_PER_MS
"""A rejected client sends a frame this often all the same: pings carry too little to measure the bandwidth by, and
without a measurement a client that was rejected for its link would stay rejected when the link is good again."""
PING_INTERVAL_NS = 500 * NS_PER_MS
SETTLING_PINGS = 5
SETTLING_INTERVAL_NS = 20 * NS_PER_MS
"""A new stream's first pings come quickly, so that delay and clock offset are known when the first frames go."""
DEFAULT_MAX_OUTSTANDING = 32
"""Jellyfish's cap; a server may ask for less."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client tells the server of itself.

    Attributes:
        name: for logs; need not be unique.
        slo_ms: end-to-end deadline, capture to result.
        fps: nominal capture rate.
        group: model group.
    """

    name: str
    slo_ms: float
    fps: float
    group: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """A frame that is not to be sent.

    Attributes:
        outcome: ``SKIPPED`` or ``REJECTED``.
    """

    outcome: Outcome
    reason: str


@dataclass(slots=True)
class _InFlight:
    frame_id: int
    captured: ClientInstant
    begun: ClientInstant
    encoded: EncodedFrame
    link: network.LinkEstimate
    sent: ClientInstant | None = None
    acked: bool = False


class Session:
    """One client's session across all its connections."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.link = network.LinkState()
        self.sizes = network.FrameSizes()
        self._tally = Tally()
        self._welcome: wire.Welcome | None = None
        self._plan: wire.PlanUpdate | None = None
        self._in_flight: dict[int, _InFlight] = {}
        self._next_probe = ClientInstant(0)
        self._preparation = Preparation()
        self._last_id = 0
        self._connected = False
        self._drain: wire.Drain | None = None
        self._next_ping: ClientInstant | None = None
        self._pings_sent = 0
        self._padded: dict[int, int] = {}
        self._next_padding = ClientInstant(0)
        self._waiting_since: ClientInstant | None = None
        self._pings_unanswered = 0

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def welcome(self) -> wire.Welcome | None:
        """The latest welcome, ``None`` before the first."""
        return self._welcome

    @property
    def plan(self) -> wire.PlanUpdate | None:
        """The plan in force, ``None`` before the first welcome."""
        return self._plan

    @property
    def draining(self) -> wire.Drain | None:
        """Set once the server has said that it will stop."""
        return self._drain

    @property
    def connected(self) -> bool:
        """Whether frames can be sent now."""
        return self._connected

    @property
    def in_flight(self) -> int:
        """Frames that have not ended."""
        return len(self._in_flight)

    @property
    def unacknowledged(self) -> list[Unacknowledged]:
        """Frames that were sent, or wait to be, and not acknowledged; oldest first."""
        return [
            Unacknowledged(len(frame.encoded.data), frame.begun if frame.sent is None else frame.sent)
            for frame in self._in_flight.values()
            if not frame.acked
        ]

    def estimate(self, now: ClientInstant) -> network.LinkEstimate:
        """The link as of ``now``."""
        return network.estimate(self.link, now)

    def statistics(self) -> Statistics:
        """Counts so far."""
        return self._tally.snapshot()

    # -- connection -------------------------------------------------------------------------------------------------

    def hello(self, now: ClientInstant) -> wire.Hello:
        """The first message of a new stream: resumes the session while there is one."""
        estimate = self.estimate(now)
        return wire.Hello(
            name=self.identity.name,
            slo_ms=self.identity.slo_ms,
            fps=self.identity.fps,
            group=self.identity.group,
            resume_token=self._welcome.token if self._welcome else b"",
            bandwidth_bps=estimate.bandwidth_bps,
            one_way_ms=estimate.rtt_ms / 2.0,
        )

    def connect(self, welcome: wire.Welcome, now: ClientInstant) -> list[FrameResult]:
        """The server has answered; frames that it does not know of are lost.

        Raises:
            ProtocolError: the server speaks another version of the protocol.
        """
        if welcome.protocol_version != wire.PROTOCOL_VERSION:
            raise ProtocolError(
                f"the server speaks protocol {welcome.protocol_version}, this client {wire.PROTOCOL_VERSION}; "
                "install the same release on both"
            )
        if self._welcome is not None:
            self._tally.reconnects += 1
        self._welcome, self._plan = welcome, welcome.plan
        self._connected, self._drain = True, None
        self._next_ping, self._pings_sent = now, 0
        self._waiting_since, self._pings_unanswered = None, 0
        self._padded.clear()
        known = welcome.last_frame_id if welcome.resumed else 0
        lost = [frame for frame in self._in_flight.values() if frame.frame_id > known]
        reason = "its session was gone" if not welcome.resumed else "it had not arrived when the connection was lost"
        return [self._end(frame, Outcome.LOST, reason) for frame in lost]

    def disconnect(self) -> list[FrameResult]:
        """The connection is gone; what had not left the client is skipped, the rest may still be answered."""
        self._connected = False
        self._next_ping = self._waiting_since = None
        unsent = [frame for frame in self._in_flight.values() if frame.sent is None]
        return [self._end(frame, Outcome.SKIPPED, "the connection was lost before it was sent") for frame in unsent]

    def forget(self) -> list[FrameResult]:
        """The server no longer knows the session: the next hello registers anew."""
        lost = [self._end(frame, Outcome.LOST, "its session was gone") for frame in list(self._in_flight.values())]
        self._welcome = None
        return lost

    def close(self) -> list[FrameResult]:
        """End every frame that is still in flight."""
        self._connected = False
        return [
            self._end(frame, Outcome.LOST if frame.sent else Outcome.SKIPPED, "the client was closed before its answer")
            for frame in list(self._in_flight.values())
        ]

    # -- frames out -------------------------------------------------------------------------------------------------

    def obstacle(self, now: ClientInstant) -> Withheld | None:
        """Why no frame can be sent now, whatever its size."""
        if self._plan is None or not self._connected:
            return Withheld(Outcome.SKIPPED, "no connection to the server")
        if self._drain is not None:
            return Withheld(Outcome.SKIPPED, f"the server drains: {self._drain.reason}")
        if not self._plan.placed and now < self._next_probe:
            return Withheld(Outcome.REJECTED, self._plan.reason or "no place in the plan")
        if len(self._in_flight) >= self._max_outstanding:
            return Withheld(Outcome.SKIPPED, f"{len(self._in_flight)} frames are unanswered already")
        return None

    def choose(self, captured: ClientInstant, now: ClientInstant) -> Send | Withheld:
        """What adaptation would send of a frame captured at ``captured``."""
        withheld = self.obstacle(now)
        if withheld is not None or self._welcome is None or self._plan is None:
            return withheld or Withheld(Outcome.SKIPPED, "no connection to the server")
        sizes = tuple(variant.input_size for variant in self._welcome.zoo.variants)
        decision = adaptation.decide(
            Stream(self.identity.slo_ms, self.identity.fps, sizes),
            self._plan_view(self._plan),
            self.estimate(now),
            self.unacknowledged,
            self.sizes,
            captured,
            now,
            self._preparation.expected_ms(now),
        )
        if not isinstance(decision, Send):
            return Withheld(Outcome.SKIPPED, decision.reason.value)
        self._preparation.choose(captured, now)
        return decision

    def _plan_view(self, plan: wire.PlanUpdate) -> PlanView:
        """The plan, or for a rejected client that of a probe: a frame of the smallest size."""
        return PlanView(True, plan.variant if plan.placed else 0, plan.infer_ms, plan.overhead_ms)

    def begin(self, encoded: EncodedFrame, captured: ClientInstant, now: ClientInstant) -> FrameResult | int:
        """Take a frame for sending: its id, or its outcome when it cannot be sent."""
        withheld = self.obstacle(now)
        if withheld is None and self._welcome is not None:
            limit = self._welcome.max_frame_bytes
            if limit and len(encoded.data) > limit:
                text = f"{len(encoded.data)} bytes; the server takes at most {limit}: lower the quality or the size"
                withheld = Withheld(Outcome.FAILED, text)
            elif encoded.variant >= len(self._welcome.zoo.variants):
                count = len(self._welcome.zoo.variants)
                withheld = Withheld(Outcome.FAILED, f"sized for variant {encoded.variant}; the zoo has {count}")
        frame = _InFlight(self._next_id(), captured, now, encoded, self.estimate(now))
        self._in_flight[frame.frame_id] = frame
        if withheld is not None:
            return self._end(frame, withheld.outcome, withheld.reason)
        self.sizes = network.observe_size(self.sizes, encoded.width, encoded.quality, len(encoded.data))
        if self._plan is not None and not self._plan.placed:
            self._next_probe = ClientInstant(now + PROBE_INTERVAL_NS)
        self._preparation.finish(captured, now, encoded.encode_ms)
        return frame.frame_id

    def withhold(self, captured: ClientInstant, withheld: Withheld, now: ClientInstant) -> FrameResult:
        """Count a captured frame that is not sent."""
        estimate = self.estimate(now)
        result = FrameResult(
            frame_id=self._next_id(),
            outcome=withheld.outcome,
            reason=withheld.reason,
            detections=Detections.empty(),
            captured_ns=captured,
            next_variant=self._variant_name(self._plan.variant) if self._plan else "",
            bandwidth_bps=estimate.bandwidth_bps if estimate.known else None,
            rtt_ms=estimate.rtt_ms if estimate.known else None,
        )
        self._tally.add(result)
        return result

    def depart(self, frame_id: int, now: ClientInstant) -> wire.Frame | FrameResult | None:
        """The stream can be written: the message, or its outcome when it is too late, or ``None`` if it has ended."""
        frame = self._in_flight.get(frame_id)
        if frame is None:
            return None
        if now >= frame.captured + ms_to_ns(self.identity.slo_ms):
            return self._end(frame, Outcome.SKIPPED, "its deadline passed before the link took it")
        frame.sent, frame.link = now, self.estimate(now)
        self._expect(now)
        offset = frame.link.offset
        return wire.Frame(
            frame_id=frame_id,
            captured_ns=frame.captured,
            sent_ns=now,
            width=frame.encoded.width,
            height=frame.encoded.height,
            variant=frame.encoded.variant,
            quality=frame.encoded.quality,
            bandwidth_bps=frame.link.bandwidth_bps,
            rtt_ms=frame.link.rtt_ms,
            server_minus_client_ns=offset.server_minus_client_ns if offset else None,
            offset_bound_ns=offset.bound_ns if offset else 0,
            data=frame.encoded.data,
        )

    # -- messages in ------------------------------------------------------------------------------------------------

    def receive(self, message: wire.ServerMessage, now: ClientInstant) -> list[FrameResult]:
        """Take in one message; the frames that it ends.

        Raises:
            ProtocolError: it names what this session does not have.
        """
        self._check(message)
        for pong in message.pongs:
            self._pings_unanswered = max(0, self._pings_unanswered - 1)
            padding = self._padded.pop(pong.sent_client_ns, 0)
            self._observe(network.Exchange(padding, pong.sent_client_ns, pong.received_ns, pong.sent_ns, now))
        for ack in message.acks:
            self._acknowledge(ack, now)
        if message.plan is not None:
            self._plan = message.plan
        if message.drain is not None:
            self._drain = message.drain
        ended = [self._answer(result, now) for result in message.results]
        if message.error is not None and message.error.frame_id and not message.error.fatal:
            refused = self._in_flight.get(message.error.frame_id)
            if refused is not None:
                reason = f"{message.error.code}: {message.error.message}"
                ended.append(self._end(refused, Outcome.FAILED, reason))
        self._waiting_since = now if self._unanswered() else None
        return [result for result in ended if result is not None]

    def _acknowledge(self, ack: wire.Ack, now: ClientInstant) -> None:
        frame = self._in_flight.get(ack.frame_id)
        if frame is None or frame.sent is None or frame.acked:
            return
        frame.acked = True
        self._observe(network.Exchange(len(frame.encoded.data), frame.sent, ack.received_ns, ack.sent_ns, now))

    def _answer(self, result: wire.Result, now: ClientInstant) -> FrameResult | None:
        if self._plan is not None and result.plan_version >= self._plan.version and self._plan.placed:
            self._plan = replace(self._plan, version=result.plan_version, variant=result.next_variant)
        frame = self._in_flight.get(result.frame_id)
        if frame is None:
            self._tally.stray_results += 1
            return None
        outcome, reason = result.outcome, result.reason
        if outcome in (Outcome.ON_TIME, Outcome.LATE):
            latency_ms = ns_to_ms(now - frame.captured)
            outcome = Outcome.ON_TIME if latency_ms <= self.identity.slo_ms else Outcome.LATE
            reason = "" if outcome is Outcome.ON_TIME else f"answered {latency_ms - self.identity.slo_ms:.1f} ms late"
        return self._end(frame, outcome, reason, result, now)

    def _observe(self, exchange: network.Exchange) -> None:
        self.link = network.observe(self.link, exchange)

    def _check(self, message: wire.ServerMessage) -> None:
        """Refuse a message whole, before any part of it has had an effect."""
        if message.plan is not None:
            self._check_variant(message.plan.variant)
        for result in message.results:
            self._check_variant(result.variant)
            self._check_variant(result.next_variant)
            self._check_classes(result)

    def _check_variant(self, index: int) -> None:
        count = len(self._welcome.zoo.variants) if self._welcome else 0
        if index >= count:
            raise ProtocolError(f"the server names variant {index}; its zoo has {count}")

    def _check_classes(self, result: wire.Result) -> None:
        known = len(self._welcome.zoo.classes) if self._welcome else 0
        if len(result.detections) and int(result.detections.classes.max()) >= known:
            raise ProtocolError(f"the server found class {result.detections.classes.max()}; its zoo has {known}")

    # -- time -------------------------------------------------------------------------------------------------------

    def expire(self, now: ClientInstant) -> list[FrameResult]:
        """End the frames that can no longer be answered."""
        return [
            self._end(frame, Outcome.LOST, "no answer came" if self._connected else "the connection was lost")
            for frame in list(self._in_flight.values())
            if now >= self._expiry(frame)
        ]

    def ping(self, now: ClientInstant) -> wire.Ping | None:
        """A ping when one is due."""
        if self._next_ping is None or now < self._next_ping:
            return None
        self._pings_sent += 1
        self._pings_unanswered += 1
        self._next_ping = ClientInstant(
            now + (SETTLING_INTERVAL_NS if self._pings_sent < SETTLING_PINGS else PING_INTERVAL_NS)
        )
        self._expect(now)
        return wire.Ping(now, self._padding(now))

    def _padding(self, now: ClientInstant) -> int:
        """Bytes that the ping of ``now`` carries, see :func:`moonjelly.adaptation.padding_bytes`."""
        if now < self._next_padding or self._pings_sent <= SETTLING_PINGS:
            return 0
        stream = Stream(self.identity.slo_ms, self.identity.fps, ())
        padding = adaptation.padding_bytes(stream, self.estimate(now), self.unacknowledged)
        if padding:
            self._padded[now] = padding
            self._next_padding = ClientInstant(now + ms_to_ns(adaptation.PADDING_EVERY_MS))
        return padding

    def silent(self, now: ClientInstant) -> bool:
        """Whether the stream has said nothing for too long although it was asked."""
        return self._waiting_since is not None and now - self._waiting_since >= ms_to_ns(OUTAGE_AFTER_MS)

    def next_instant(self) -> ClientInstant | None:
        """When :meth:`expire`, :meth:`ping` or :meth:`silent` next has something to say."""
        instants = [self._expiry(frame) for frame in self._in_flight.values()]
        if self._next_ping is not None:
            instants.append(self._next_ping)
        if self._waiting_since is not None:
            instants.append(ClientInstant(self._waiting_since + ms_to_ns(OUTAGE_AFTER_MS)))
        return min(instants, default=None)

    def _expiry(self, frame: _InFlight) -> ClientInstant:
        grace_ms = ANSWER_GRACE_MS if self._connected else 0.0
        return ClientInstant(frame.captured + ms_to_ns(self.identity.slo_ms + grace_ms))

    def _expect(self, now: ClientInstant) -> None:
        if self._waiting_since is None:
            self._waiting_since = now

    def _unanswered(self) -> bool:
        return self._pings_unanswered > 0 or any(
            frame.sent is not None and not frame.acked for frame in self._in_flight.values()
        )

    # -- outcomes ---------------------------------------------------------------------------------------------------

    @property
    def _max_outstanding(self) -> int:
        asked = self._welcome.max_outstanding if self._welcome else 0
        return min(asked, DEFAULT_MAX_OUTSTANDING) if asked else DEFAULT_MAX_OUTSTANDING

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _variant_name(self, index: int) -> str:
        variants = self._welcome.zoo.variants if self._welcome else ()
        return variants[index].name if index < len(variants) else ""

    def _end(
        self,
        frame: _InFlight,
        outcome: Outcome,
        reason: str,
        answer: wire.Result | None = None,
        now: ClientInstant | None = None,
    ) -> FrameResult:
        del self._in_flight[frame.frame_id]
        answered = answer is not None and outcome in (Outcome.ON_TIME, Outcome.LATE)
        network_ms = None
        if answer is not None and now is not None and frame.sent is not None:
            network_ms = max(0.0, ns_to_ms(now - frame.sent) - answer.stages.server_ms)
        result = FrameResult(
            frame_id=frame.frame_id,
            outcome=outcome,
            reason=reason,
            detections=answer.detections if answer and answered else Detections.empty(),
            captured_ns=frame.captured,
            sent_ns=frame.sent,
            received_ns=now,
            desired_variant=self._variant_name(frame.encoded.variant),
            used_variant=self._variant_name(answer.variant) if answer and answered else "",
            next_variant=self._variant_name(self._plan.variant) if self._plan else "",
            accuracy=self._accuracy(answer.variant) if answer and outcome is Outcome.ON_TIME else 0.0,
            input_size=frame.encoded.width,
            quality=frame.encoded.quality,
            wire_bytes=len(frame.encoded.data),
            encode_ms=frame.encoded.encode_ms,
            network_ms=network_ms,
            bandwidth_bps=frame.link.bandwidth_bps if frame.link.known else None,
            rtt_ms=frame.link.rtt_ms if frame.link.known else None,
            stages=answer.stages if answer else None,
        )
        self._tally.add(result)
        return result

    def _accuracy(self, index: int) -> float:
        return self._welcome.zoo.variants[index].accuracy if self._welcome else 0.0
