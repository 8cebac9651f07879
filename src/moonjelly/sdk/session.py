"""What a client knows, without sockets, tasks or a clock: messages and instants in, messages and outcomes out.

Invariant: every frame that is begun or withheld ends in exactly one :class:`FrameResult`, whatever happens to the
connection. A frame in flight ends by its result, or as ``LOST`` when its deadline has passed while the connection was
down, when the server does not know it after a resume, or when its answer is overdue by
:data:`~moonjelly.sdk.frames.ANSWER_GRACE_MS`. What arrives for a frame that has ended is a stray and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moonjelly import adaptation, network
from moonjelly.adaptation import Send, Stream, Unacknowledged
from moonjelly.rpc import messages
from moonjelly.sdk import outcomes
from moonjelly.sdk.frames import FrameInFlight, FramesInFlight
from moonjelly.sdk.pings import Pings
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.statistics import Statistics, Tally
from moonjelly.sdk.terms import Terms, plan_view
from moonjelly.sender import Sender
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_MS, ClientInstant, ms_to_ns

PROBE_INTERVAL_NS = 1000 * NS_PER_MS
"""A rejected client sends a frame this often all the same: pings carry too little to measure the bandwidth by, and
without a measurement a client that was rejected for its link would stay rejected when the link is good again."""
_UNCONNECTED = Withheld(Outcome.SKIPPED, "no connection to the server", may_pass=True)


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


class Session:
    """One client's session across all its connections.

    Attributes:
        identity: what the server is told of this client.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._sender = Sender(identity.slo_ms)
        self._terms = Terms()
        self._frames = FramesInFlight()
        self._pings = Pings()
        self._tally = Tally()
        self._connected = False
        self._next_probe = ClientInstant(0)
        self._last_id = 0

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def welcome(self) -> messages.Welcome | None:
        """The latest welcome, ``None`` before the first."""
        return self._terms.welcome

    @property
    def plan(self) -> messages.PlanUpdate | None:
        """The plan in force, ``None`` before the first welcome."""
        return self._terms.plan

    @property
    def draining(self) -> messages.Drain | None:
        """Set once the server has said that it will stop."""
        return self._terms.drain

    @property
    def connected(self) -> bool:
        """Whether frames can be sent now."""
        return self._connected

    @property
    def in_flight(self) -> int:
        """Frames that have not ended."""
        return len(self._frames)

    @property
    def unacknowledged(self) -> list[Unacknowledged]:
        """Frames that were sent, or wait to be, and not acknowledged; oldest first."""
        return self._frames.unacknowledged()

    @property
    def link(self) -> network.LinkState:
        """What has been learnt of bandwidth, round trip and clock offset."""
        return self._sender.link

    def estimate(self, now: ClientInstant) -> network.LinkEstimate:
        """The link as of ``now``."""
        return self._sender.estimate(now)

    def statistics(self) -> Statistics:
        """Counts so far."""
        return self._tally.snapshot()

    # -- connection -------------------------------------------------------------------------------------------------

    def hello(self, now: ClientInstant) -> messages.Hello:
        """The first message of a new stream: resumes the session while there is one."""
        estimate = self.estimate(now)
        return messages.Hello(
            name=self.identity.name,
            slo_ms=self.identity.slo_ms,
            fps=self.identity.fps,
            group=self.identity.group,
            resume_token=self.welcome.token if self.welcome else b"",
            bandwidth_bps=estimate.bandwidth_bps,
            one_way_ms=estimate.rtt_ms / 2.0,
        )

    def connect(self, welcome: messages.Welcome, now: ClientInstant) -> list[FrameResult]:
        """The server has answered; frames that it does not know of are lost.

        Raises:
            ProtocolError: the server speaks another version of the protocol.
        """
        again = self.welcome is not None
        self._terms.accept(welcome)
        self._tally.reconnects += again
        self._connected = True
        self._pings.start(now)
        self._sender.stop()
        known = welcome.last_frame_id if welcome.resumed else 0
        for frame in self._frames:
            frame.acked = frame.acked or frame.frame_id <= known  # its acknowledgement went with the old stream
        reason = "it had not arrived when the connection was lost" if welcome.resumed else "its session was gone"
        return self._lose((frame for frame in self._frames if frame.frame_id > known), reason)

    def disconnect(self) -> list[FrameResult]:
        """The connection is gone; what had not left the client is skipped, the rest may still be answered."""
        self._connected = False
        self._pings.stop()
        self._sender.stop()
        reason = "the connection was lost before it was sent"
        return [self._end(frame, Outcome.SKIPPED, reason) for frame in self._frames if frame.sent is None]

    def forget(self) -> list[FrameResult]:
        """The server no longer knows the session: the next hello registers anew."""
        lost = self._lose(self._frames, "its session was gone")
        self._terms.welcome = None
        return lost

    def close(self) -> list[FrameResult]:
        """End every frame that is still in flight."""
        self._connected = False
        return [
            self._end(frame, Outcome.LOST if frame.sent else Outcome.SKIPPED, "the client was closed before its answer")
            for frame in self._frames
        ]

    # -- frames out -------------------------------------------------------------------------------------------------

    def obstacle(self, now: ClientInstant) -> Withheld | None:
        """Why no frame can be sent now, whatever its size."""
        if self.plan is None or not self._connected:
            return _UNCONNECTED
        if self.draining is not None:
            return Withheld(Outcome.SKIPPED, f"the server drains: {self.draining.reason}")
        if not self.plan.placed and now < self._next_probe:
            return Withheld(Outcome.REJECTED, self.plan.reason or "no place in the plan")
        if len(self._frames) >= self._terms.max_outstanding:
            return Withheld(Outcome.SKIPPED, f"{len(self._frames)} frames are unanswered already", may_pass=True)
        return None

    def choose(self, captured: ClientInstant, now: ClientInstant, probing: bool = True) -> Send | Withheld:
        """What adaptation would send of a frame captured at ``captured``; see :func:`moonjelly.adaptation.decide`."""
        why = self.obstacle(now)
        if why is not None or self.plan is None:
            return why or _UNCONNECTED
        view = plan_view(self.plan)
        decision = self._sender.choose(self._stream(), view, self.unacknowledged, captured, now, probing)
        if not isinstance(decision, Send):
            return Withheld(Outcome.SKIPPED, decision.reason.value, decision.reason.may_pass)
        return decision

    def begin(self, encoded: EncodedFrame, captured: ClientInstant, now: ClientInstant) -> FrameResult | int:
        """Take a frame for sending: its id, or its outcome when it cannot be sent."""
        deadline = ClientInstant(captured + ms_to_ns(self.identity.slo_ms))
        frame = FrameInFlight(self._next_id(), captured, now, deadline, encoded, self.estimate(now))
        why = self.obstacle(now) or self._terms.objection(encoded)
        if why is not None:
            return self._count(outcomes.unanswered(frame, why.outcome, why.reason, self._terms))
        self._frames.add(frame)
        size_bytes = len(encoded.data)
        self._sender.encoded(encoded.width, encoded.quality, size_bytes, captured, now, encoded.encode_ms)
        if self.plan is not None and not self.plan.placed:
            self._next_probe = ClientInstant(now + PROBE_INTERVAL_NS)
        return frame.frame_id

    def withhold(self, captured: ClientInstant, why: Withheld, now: ClientInstant) -> FrameResult:
        """Count a captured frame that is not sent."""
        return self._count(outcomes.withheld(self._next_id(), captured, why, self.estimate(now), self._terms))

    def depart(self, frame_id: int, now: ClientInstant) -> messages.Frame | FrameResult | None:
        """The stream can be written: the message, or its outcome when it is too late, or ``None`` if it has ended."""
        frame = self._frames.get(frame_id)
        if frame is None:
            return None
        if now >= frame.deadline:
            return self._end(frame, Outcome.SKIPPED, "its deadline passed before the link took it")
        frame.sent, frame.link = now, self.estimate(now)
        self._sender.asked(frame.link, self.unacknowledged, now)
        return frame.message(now)

    def _stream(self) -> Stream:
        return Stream(self.identity.slo_ms, self.identity.fps, self._terms.input_sizes)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # -- messages in ------------------------------------------------------------------------------------------------

    def receive(self, message: messages.ServerMessage, now: ClientInstant) -> list[FrameResult]:
        """Take in one message; the frames that it ends.

        Raises:
            ProtocolError: it names what this session does not have.
        """
        self._terms.check(message)
        for exchange in self._exchanges(message, now):
            self._sender.measured(exchange)
        self._terms.update(message)
        ended = [self._answer(result, now) for result in message.results]
        if message.error is not None:
            ended.append(self._refuse(message.error))
        self._sender.heard(now, self._pings.unanswered or self._frames.awaits_acknowledgement())
        return [result for result in ended if result is not None]

    def _exchanges(self, message: messages.ServerMessage, now: ClientInstant) -> list[network.Exchange]:
        """What a message's answers tell of the link, in the order in which the server has read what they answer.

        A ping that waited behind a frame is answered together with it. Taken in before that frame it would seem to have
        met an idle link, and what it waited for to be what every message is delayed by.
        """
        exchanges = [self._exchange(pong, now) for pong in message.pongs]
        acknowledged = (self._acknowledge(ack, now) for ack in message.acks)
        exchanges += [exchange for exchange in acknowledged if exchange is not None]
        return sorted(exchanges, key=lambda exchange: exchange.received)

    def _exchange(self, pong: messages.Pong, now: ClientInstant) -> network.Exchange:
        padding_bytes = self._pings.answered(pong)
        return network.Exchange(padding_bytes, pong.sent_client_ns, pong.received_ns, pong.sent_ns, now)

    def _acknowledge(self, ack: messages.Ack, now: ClientInstant) -> network.Exchange | None:
        frame = self._frames.get(ack.frame_id)
        if frame is None or frame.sent is None or frame.acked:
            return None
        frame.acked = True
        return network.Exchange(len(frame.encoded.data), frame.sent, ack.received_ns, ack.sent_ns, now)

    def _answer(self, answer: messages.Result, now: ClientInstant) -> FrameResult | None:
        self._terms.follow(answer)
        frame = self._frames.get(answer.frame_id)
        if frame is None:
            self._tally.stray_results += 1
            return None
        self._frames.remove(frame)
        result = outcomes.answered(frame, answer, now, self._terms)
        self._sender.answered(result.outcome)
        return self._count(result)

    def _refuse(self, error: messages.StreamError) -> FrameResult | None:
        """An error about one frame alone ends it."""
        frame = None if error.fatal else self._frames.get(error.frame_id)
        return None if frame is None else self._end(frame, Outcome.FAILED, f"{error.code}: {error.message}")

    # -- time -------------------------------------------------------------------------------------------------------

    def expire(self, now: ClientInstant) -> list[FrameResult]:
        """End the frames that can no longer be answered."""
        reason = "no answer came" if self._connected else "the connection was lost"
        return self._lose(self._frames.expired(now, self._connected), reason)

    def ping(self, now: ClientInstant) -> messages.Ping | None:
        """A ping when one is due."""
        if not self._pings.due(now):
            return None
        padding_bytes, link = 0, self.estimate(now)
        if self._pings.may_carry_padding(now):
            padding_bytes = adaptation.padding_bytes(self._stream(), link, self.unacknowledged)
        self._sender.asked(link, self.unacknowledged, now)
        return self._pings.send(now, padding_bytes)

    def silent(self, now: ClientInstant) -> bool:
        """Whether the stream has said nothing for too long although it was asked; see :meth:`Sender.silent`."""
        return self._sender.silent(now)

    def retry_ms(self, gone_ms: float, now: ClientInstant) -> float:
        """From one attempt to resume to the next, ``gone_ms`` after the connection was lost."""
        return self._sender.retry_ms(gone_ms, now)

    def next_instant(self) -> ClientInstant | None:
        """When :meth:`expire`, :meth:`ping` or :meth:`silent` next has something to say."""
        instants = (self._frames.next_expiry(self._connected), self._pings.next_instant, self._sender.next_look)
        return min((instant for instant in instants if instant is not None), default=None)

    # -- outcomes ---------------------------------------------------------------------------------------------------

    def _lose(self, frames: Iterable[FrameInFlight], reason: str) -> list[FrameResult]:
        return [self._end(frame, Outcome.LOST, reason) for frame in frames]

    def _end(self, frame: FrameInFlight, outcome: Outcome, reason: str) -> FrameResult:
        self._frames.remove(frame)
        return self._count(outcomes.unanswered(frame, outcome, reason, self._terms))

    def _count(self, result: FrameResult) -> FrameResult:
        self._tally.add(result)
        return result
