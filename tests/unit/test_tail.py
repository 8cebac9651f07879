"""The tail of a time that is measured again and again."""

from __future__ import annotations

import random

from moonjelly.tail import BEYOND, MOST_NS, NO_TAIL, WINDOW


def tail_of(*times_ns: int) -> int:
    tail = NO_TAIL
    for time_ns in times_ns:
        tail = tail.after(time_ns)
    return tail.ns


def test_stalls_make_no_tail() -> None:
    assert tail_of(*[10_000] * BEYOND) == 0
    assert tail_of(*[10_000] * BEYOND, 300) == 300


def test_one_time_in_twenty_does() -> None:
    assert tail_of(*[10_000] * (BEYOND + 1), *[100] * (WINDOW - BEYOND - 1)) == 10_000
    assert tail_of(*[10_000] * (BEYOND + 1), *[100] * (WINDOW - BEYOND)) == 100, "the oldest is forgotten"


def test_what_was_earlier_than_expected_is_no_debt() -> None:
    assert tail_of(*[-5_000] * WINDOW) == 0


def test_a_host_that_stood_still_is_not_believed_whole() -> None:
    assert tail_of(*[10 * MOST_NS] * WINDOW) == MOST_NS


def test_it_is_always_the_one_beyond_which_only_a_few_lie() -> None:
    draw, tail, times_ns = random.Random(1), NO_TAIL, list[int]()
    for _ in range(2000):
        times_ns.append(draw.choice((0, 0, 3, 3, 5, draw.randrange(8))))
        tail = tail.after(times_ns[-1])
        recent = sorted(times_ns[-WINDOW:])
        assert tail.ns == (recent[-1 - BEYOND] if len(recent) > BEYOND else 0)
