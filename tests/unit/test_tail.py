"""The tail of a time that is measured again and again."""

from __future__ import annotations

import random

from moonjelly.tail import BEYOND, MOST_NS, NO_TAIL, STEP_NS, WINDOW


def tail_of(*times: int) -> int:
    """In steps, of times in steps."""
    tail = NO_TAIL
    for time in times:
        tail = tail.after(time * STEP_NS)
    return tail.ns // STEP_NS


def test_stalls_make_no_tail() -> None:
    assert tail_of(*[100] * BEYOND) == 0
    assert tail_of(*[100] * BEYOND, 3) == 3


def test_one_time_in_twenty_does() -> None:
    assert tail_of(*[100] * (BEYOND + 1), *[1] * (WINDOW - BEYOND - 1)) == 100
    assert tail_of(*[100] * (BEYOND + 1), *[1] * (WINDOW - BEYOND)) == 1, "the oldest is forgotten"


def test_what_was_earlier_than_expected_is_no_debt() -> None:
    assert tail_of(*[-50] * WINDOW) == 0


def test_a_host_that_stood_still_is_not_believed_whole() -> None:
    assert tail_of(*[10 * MOST_NS // STEP_NS] * WINDOW) * STEP_NS == MOST_NS


def test_a_time_counts_in_whole_steps() -> None:
    tail = NO_TAIL
    for _ in range(WINDOW):
        tail = tail.after(7 * STEP_NS + STEP_NS - 1)
    assert tail.ns == 7 * STEP_NS


def test_it_is_always_the_one_beyond_which_only_a_few_lie() -> None:
    draw, tail, times_ns = random.Random(1), NO_TAIL, list[int]()
    for _ in range(2000):
        times_ns.append(draw.choice((0, 0, 3, 3, 5, draw.randrange(8))) * STEP_NS)
        tail = tail.after(times_ns[-1])
        recent = sorted(times_ns[-WINDOW:])
        assert tail.ns == (recent[-1 - BEYOND] if len(recent) > BEYOND else 0)
