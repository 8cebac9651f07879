"""Whatever happens to a session, every frame ends in exactly one outcome."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from moonjelly.rpc import messages as wire
from moonjelly.sdk.frames import ANSWER_GRACE_MS
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.session import Identity, Session
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant, ms_to_ns

SLO_MS = 100.0
ZOO = wire.ZooInfo("zoo", "default", (wire.ZooVariant("s", 96, 0.25), wire.ZooVariant("l", 128, 0.5)), ("car",))
PLAN = wire.PlanUpdate(version=1, placed=True, variant=1, infer_ms=5.0)
WELCOME = wire.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 100_000, 8, "1")
ANSWERS = st.sampled_from([Outcome.ON_TIME, Outcome.LATE, Outcome.DROPPED, Outcome.REJECTED, Outcome.FAILED])


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.session = Session(Identity("camera", SLO_MS, 10.0, "default"))
        self.now = ClientInstant(10**12)
        self.last_id = 0
        self.departed: list[int] = []
        self.queued: list[int] = []
        self.ended: dict[int, FrameResult] = {}

    def note(self, results: list[FrameResult]) -> None:
        for result in results:
            assert result.frame_id not in self.ended, "ended twice"
            assert result.frame_id <= self.last_id
            self.ended[result.frame_id] = result
            if result.outcome in (Outcome.ON_TIME, Outcome.LATE):
                assert result.latency_ms is not None
                assert (result.latency_ms <= SLO_MS) == (result.outcome is Outcome.ON_TIME)
            else:
                assert result.reason
                assert len(result.detections) == 0

    @rule(milliseconds=st.integers(0, 3000))
    def time_passes(self, milliseconds: int) -> None:
        self.now = ClientInstant(self.now + ms_to_ns(milliseconds))
        self.note(self.session.expire(self.now))

    @rule(resumed=st.booleans(), known=st.integers(0, 40), placed=st.booleans())
    @precondition(lambda self: not self.session.connected)
    def connects(self, resumed: bool, known: int, placed: bool) -> None:
        resumed = resumed and self.session.welcome is not None
        welcome = structs.replace(
            WELCOME, resumed=resumed, last_frame_id=known, plan=structs.replace(PLAN, placed=placed)
        )
        self.note(self.session.connect(welcome, self.now))

    @rule()
    @precondition(lambda self: self.session.connected)
    def disconnects(self) -> None:
        self.note(self.session.disconnect())

    @rule()
    @precondition(lambda self: not self.session.connected)
    def is_forgotten(self) -> None:
        self.note(self.session.forget())

    @rule(age_ms=st.integers(0, 120), size=st.integers(1, 120_000), variant=st.integers(0, 2))
    def submits(self, age_ms: int, size: int, variant: int) -> None:
        self.last_id += 1
        frame = EncodedFrame(bytes(size), 96, 96, variant, 90)
        begun = self.session.begin(frame, ClientInstant(self.now - ms_to_ns(age_ms)), self.now)
        if isinstance(begun, FrameResult):
            self.note([begun])
        else:
            assert begun == self.last_id
            self.queued.append(begun)

    @rule()
    def withholds(self) -> None:
        self.last_id += 1
        self.note([self.session.withhold(self.now, Withheld(Outcome.SKIPPED, "so"), self.now)])

    @rule()
    @precondition(lambda self: self.queued and self.session.connected)
    def departs(self) -> None:
        frame_id = self.queued.pop(0)
        message = self.session.depart(frame_id, self.now)
        if isinstance(message, FrameResult):
            self.note([message])
        elif message is not None:
            self.departed.append(frame_id)
        else:
            assert frame_id in self.ended

    @rule(data=st.data(), outcome=ANSWERS, variant=st.integers(0, 1))
    @precondition(lambda self: self.departed and self.session.connected)
    def is_answered(self, data: st.DataObject, outcome: Outcome, variant: int) -> None:
        frame_id = data.draw(st.sampled_from(self.departed))
        result = wire.Result(
            frame_id, outcome, "so", Detections.empty(), variant, variant, 1, wire.StageTimes(), ServerInstant(1)
        )
        self.note(self.session.receive(wire.ServerMessage(results=(result,)), self.now))
        assert frame_id in self.ended

    @rule(data=st.data())
    @precondition(lambda self: self.departed and self.session.connected)
    def is_acknowledged(self, data: st.DataObject) -> None:
        frame_id = data.draw(st.sampled_from(self.departed))
        ack = wire.Ack(frame_id, ServerInstant(self.now + 500), ServerInstant(self.now + 600), 1000)
        self.note(self.session.receive(wire.ServerMessage(acks=(ack,)), self.now))

    @rule()
    @precondition(lambda self: self.session.connected)
    def pings(self) -> None:
        self.session.ping(self.now)

    @invariant()
    def the_books_balance(self) -> None:
        counts = self.session.statistics()
        assert counts.captured == len(self.ended) == sum(counts.outcomes.values())
        assert self.session.in_flight + len(self.ended) == self.last_id
        assert len(self.session.unacknowledged) <= self.session.in_flight <= 8

    def teardown(self) -> None:
        self.now = ClientInstant(self.now + ms_to_ns(SLO_MS + ANSWER_GRACE_MS))
        self.note(self.session.expire(self.now))
        assert self.session.in_flight == 0, "a deadline has passed and a frame has no outcome"
        assert sorted(self.ended) == list(range(1, self.last_id + 1))


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
