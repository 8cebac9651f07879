"""What a session learns of its link from acknowledgements and pongs that come in one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.rpc import messages
from moonjelly.sdk.results import EncodedFrame
from moonjelly.sdk.session import Identity, Session
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant, ServerInstant
from network_shaping.pacing import Pacer
from network_shaping.traces import Trace

ZOO = messages.ZooInfo("zoo", "default", (messages.ZooVariant("s", 96, 0.25),), ("car",))
PLAN = messages.PlanUpdate(version=1, placed=True, variant=0, infer_ms=5.0)
WELCOME = messages.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 200_000, 100, "1")
SLO_MS = 100.0
BUCKET_BYTES = 5_000
TOGETHER_NS = NS_PER_MS
"""A server holds an acknowledgement back for as long, for something to travel with."""
ONE_WAY_S, JITTER_S = 0.0003, 0.0003

Answer: TypeAlias = messages.Ack | messages.Pong


def connected(now: ClientInstant) -> Session:
    session = Session(Identity("camera", SLO_MS, 25.0, "default"))
    assert session.connect(WELCOME, now) == []
    return session


def answer_to(message: messages.Frame | messages.Ping, received_s: float) -> Answer:
    received = ServerInstant(round(received_s * NS_PER_S))
    if isinstance(message, messages.Ping):
        return messages.Pong(message.sent_ns, received, received)
    return messages.Ack(message.frame_id, received, received, len(message.data))


def sent_frame(session: Session, size_bytes: int, now: ClientInstant) -> messages.Frame:
    frame_id = session.begin(EncodedFrame(bytes(size_bytes), 96, 96, 0, 90), now, now)
    assert isinstance(frame_id, int)
    message = session.depart(frame_id, now)
    assert isinstance(message, messages.Frame)
    return message


def result_of(ack: messages.Ack) -> messages.Result:
    detections, stages = Detections.empty(), messages.StageTimes()
    return messages.Result(ack.frame_id, Outcome.DROPPED, "so", detections, 0, 0, 1, stages, ack.sent_ns)


def together(answers: Sequence[Answer]) -> messages.ServerMessage:
    acks = tuple(answer for answer in answers if isinstance(answer, messages.Ack))
    return messages.ServerMessage(
        acks=acks,
        results=tuple(result_of(ack) for ack in acks),
        pongs=tuple(answer for answer in answers if isinstance(answer, messages.Pong)),
    )


class Uplink:
    """A link with a bucket, and a server that answers what it reads within a millisecond in one message."""

    def __init__(self, rate_bps: float, seed: int) -> None:
        self._pacer = Pacer(Trace("steady", (0.0,), (rate_bps,), 1.0), BUCKET_BYTES)
        self._random = np.random.default_rng(seed)
        self._last_s = 0.0
        self._waiting: list[Answer] = []

    def carry(self, message: messages.Frame | messages.Ping, size_bytes: int, now: ClientInstant) -> None:
        passed_s = self._pacer.reserve(now / NS_PER_S, size_bytes + 60) + ONE_WAY_S
        self._last_s = max(self._last_s + 2e-5, passed_s + self._random.exponential(JITTER_S))
        self._waiting.append(answer_to(message, self._last_s))

    def answers(self, until: ClientInstant) -> Iterator[tuple[messages.ServerMessage, ClientInstant]]:
        """Messages that have come back by ``until``, and when."""
        while self._waiting:
            left_ns = self._waiting[0].received_ns + TOGETHER_NS
            if left_ns > until:
                return
            ready = [answer for answer in self._waiting if answer.received_ns <= left_ns]
            del self._waiting[: len(ready)]
            yield together(ready), ClientInstant(left_ns + round(ONE_WAY_S * NS_PER_S))


def estimates(fps: float, rate_bps: float, busy: float, seconds: float) -> Iterator[float]:
    """Before every frame of a stream of frames of one size that keep the link ``busy`` for that share of the time."""
    size_bytes = round(busy * rate_bps / fps / 8)
    link, session = Uplink(rate_bps, seed=1), connected(ClientInstant(0))
    due_ns = 100 * NS_PER_MS
    for now in map(ClientInstant, range(0, round(seconds * NS_PER_S), NS_PER_MS)):
        for message, returned in link.answers(now):
            session.receive(message, returned)
        if ping := session.ping(now):
            link.carry(ping, ping.padding_bytes, now)
        if now >= due_ns:
            due_ns += round(NS_PER_S / fps)
            yield session.estimate(now).bandwidth_bps
            link.carry(sent_frame(session, size_bytes, now), size_bytes, now)


@pytest.mark.parametrize(("fps", "busy"), [(15.1, 0.65), (25.1, 0.75)])
def test_pings_that_wait_behind_frames_do_not_raise_the_estimate(fps: float, busy: float) -> None:
    """More than half of them wait, and are answered together with the frame that they waited for."""
    rate_bps = 16e6
    late = list(estimates(fps, rate_bps, busy, seconds=120.0))[-round(60 * fps) :]
    assert 0.9 * rate_bps < min(late)
    assert max(late) < 1.1 * rate_bps


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(513, 60_000), st.integers(0, 600), st.booleans()), min_size=1, max_size=30
    )
)
def test_answers_teach_the_same_in_one_message_as_in_many(steps: list[tuple[bool, int, int, bool]]) -> None:
    """Frames and pings, and after which of them the message ends that answers them."""
    alone, grouped = connected(ClientInstant(0)), connected(ClientInstant(0))
    link, now, waiting = Pacer(Trace("steady", (0.0,), (12e6,), 1.0)), ClientInstant(0), list[Answer]()
    for is_ping, size_bytes, pause_ms, ends in steps:
        now = ClientInstant(now + pause_ms * NS_PER_MS)
        message: messages.Frame | messages.Ping | None
        for session in (alone, grouped):
            session.expire(now)
            message = session.ping(now) if is_ping else sent_frame(session, size_bytes, now)
        if message is None:
            continue
        waiting.append(answer_to(message, link.reserve(now / NS_PER_S, 100 if is_ping else size_bytes) + ONE_WAY_S))
        if ends:
            now = ClientInstant(max(now, waiting[-1].received_ns))
            for answer in waiting:
                alone.receive(together([answer]), now)
            grouped.receive(together(waiting), now)
            waiting.clear()
            assert grouped.link == alone.link
