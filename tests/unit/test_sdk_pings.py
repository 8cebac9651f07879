from __future__ import annotations

import numpy as np

from moonjelly.adaptation import PADDING_EVERY_MS
from moonjelly.network import SETTLING_PINGS
from moonjelly.rpc.messages import Ping, Pong
from moonjelly.sdk.pings import Pings
from moonjelly.units import NS_PER_MS, ClientInstant, ServerInstant, ms_to_ns

START = ClientInstant(1_000_000_000)


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(START + ms_to_ns(milliseconds))


def pong(ping: Ping) -> Pong:
    return Pong(ping.sent_ns, ServerInstant(1), ServerInstant(2))


def started() -> Pings:
    pings = Pings()
    pings.start(START)
    return pings


def settled() -> Pings:
    pings = started()
    for _ in range(SETTLING_PINGS):
        pings.answered(pong(pings.send(START, 0)))
    return pings


def test_pings_come_quickly_first_and_then_twice_a_second() -> None:
    pings = started()
    instants = []
    now = START
    while len(instants) < 7:
        if pings.due(now):
            pings.send(now, 0)
            instants.append((now - START) / NS_PER_MS)
            assert pings.next_instant is not None
        now = ClientInstant(now + NS_PER_MS)
    assert np.diff(instants).tolist() == [20, 20, 20, 20, 500, 500]


def test_without_a_stream_none_is_due() -> None:
    pings = Pings()
    assert not pings.due(at(60_000))
    pings.start(START)
    assert pings.due(START)
    pings.stop()
    assert not pings.due(at(60_000))
    assert pings.next_instant is None


def test_padding_waits_for_the_first_pings_and_then_for_its_interval() -> None:
    pings = started()
    assert not pings.may_carry_padding(START)
    pings = settled()
    assert pings.may_carry_padding(at(100))
    pings.send(at(100), 8000)
    assert not pings.may_carry_padding(at(100 + PADDING_EVERY_MS - 1))
    assert pings.may_carry_padding(at(100 + PADDING_EVERY_MS))


def test_an_answer_is_counted_with_the_size_of_its_ping_once() -> None:
    pings = settled()
    padded, plain = pings.send(at(100), 8000), pings.send(at(600), 0)
    assert pings.unanswered
    assert pings.answered(pong(plain)) == 0
    assert pings.unanswered
    assert pings.answered(pong(padded)) == 8000
    assert not pings.unanswered
    assert pings.answered(pong(padded)) == 0
    assert not pings.unanswered


def test_a_new_stream_owes_no_answer_to_the_last_ones_pings() -> None:
    pings = settled()
    lost = pings.send(at(100), 8000)
    pings.start(at(200))
    assert not pings.unanswered
    assert pings.answered(pong(lost)) == 0
