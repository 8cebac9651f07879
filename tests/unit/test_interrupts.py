"""Signals that stop a program: one takes effect, the others wait or are ignored."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from moonjelly.interrupts import deferred, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """No signal is ignored, not even where the tests run under ``nohup``."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_only_the_first_signal_interrupts(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    in_order = False
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for other in SIGNALS:
            signal.raise_signal(other)
        in_order = True
    assert in_order
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    done = []

    def put_in_order() -> None:
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("within")
        done.append("after the first")

    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            put_in_order()
        put_in_order()
    assert done == ["within", "within", "after the first"]


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(), deferred():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
