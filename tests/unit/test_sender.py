"""The SDK's session and a simulated client, side by side: what one decides, the other does."""

from __future__ import annotations

import numpy as np
import pytest

from moonjelly.adaptation import Send, Skip, Stream
from moonjelly.network import Exchange
from moonjelly.rpc import messages
from moonjelly.sdk.results import EncodedFrame, Withheld
from moonjelly.sdk.session import Identity, Session
from moonjelly.sdk.terms import plan_view
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant, ms_to_ns
from simulation.adapters import AdaptiveClient

SLO_MS, FPS = 100.0, 10.0
SIDES = (96, 128, 160, 192)
PLAN = messages.PlanUpdate(version=1, placed=True, variant=3, infer_ms=8.0)
VARIANTS = tuple(messages.ZooVariant(str(side), side, 0.2 + side / 1000) for side in SIDES)
ZOO = messages.ZooInfo("zoo", "default", VARIANTS, ("car",))
WELCOME = messages.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 1_000_000, 8, "1")


@pytest.mark.parametrize("seed", range(8))
def test_a_simulated_client_decides_as_a_session_does(seed: int) -> None:
    """Over a link whose rate wanders, answers that are late now and then, and one lost connection."""
    rng = np.random.default_rng(seed)
    session = Session(Identity("camera", SLO_MS, FPS, "default"))
    session.connect(WELCOME, ClientInstant(0))
    client = AdaptiveClient(Stream(SLO_MS, FPS, SIDES), plan_view(PLAN))
    rate_bps, decided = 4e6, set()
    for number in range(1, 151):
        now = ClientInstant(round(number * 1e9 / FPS))
        if number == 75:
            session.disconnect()
            client.reset()
            session.connect(WELCOME, now)
            client.planned(plan_view(PLAN))
        ours, theirs = session.choose(now, now), client.choose(now, now)
        if isinstance(theirs, Skip):
            assert isinstance(ours, Withheld)
            assert ours.reason == theirs.reason.value
            decided.add(theirs.reason.value)
            continue
        assert isinstance(ours, Send)
        assert ours == theirs
        decided.add(str(ours.variant))

        rate_bps *= float(np.exp(rng.normal(0.0, 0.3)))
        side, size_bytes = SIDES[ours.variant], int(rng.integers(2_000, 2_000 + 60 * SIDES[ours.variant]))
        captured, took_ms = now, float(rng.choice([0.0, 3.0, 25.0]))
        now = ClientInstant(captured + ms_to_ns(took_ms))
        encoded = EncodedFrame(bytes(size_bytes), side, side, 0, ours.jpeg_quality, took_ms)
        frame_id = session.begin(encoded, captured, now)
        assert isinstance(frame_id, int)
        assert session.depart(frame_id, now) is not None
        client.sent(captured, side, ours.jpeg_quality, size_bytes, now, took_ms)
        link = session.estimate(now)
        assert client.report(now) == (link.bandwidth_bps, link.rtt_ms, link.offset)

        took_ns = round(size_bytes * 8e9 / rate_bps)
        received, replied = ServerInstant(now + took_ns + 2_000_000), ServerInstant(now + took_ns + 2_100_000)
        back = ClientInstant(replied + 2_000_000)
        client.acknowledged(Exchange(size_bytes, now, received, replied, back))
        session.receive(messages.ServerMessage(acks=(messages.Ack(frame_id, received, replied, size_bytes),)), back)

        answered = ClientInstant(back + ms_to_ns(float(rng.choice([5.0, 30.0]))))
        following = int(rng.integers(1, len(SIDES)))
        result = messages.Result(
            frame_id, Outcome.ON_TIME, "", Detections.empty(), 0, following, 1, messages.StageTimes(), replied
        )
        (ended,) = session.receive(messages.ServerMessage(results=(result,)), answered)
        client.answered(following, ended.outcome)
    assert len(decided) > 2, "different sizes, so that agreeing says something"
