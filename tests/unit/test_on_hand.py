"""Which of the frames that wait for the link is sent next, and which wait no longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moonjelly.adaptation import Send
from moonjelly.on_hand import MOST, OnHand
from moonjelly.units import ClientInstant, ms_to_ns

SLO_MS = 100.0
SMALL = Send(variant=0, jpeg_quality=30, expected_bytes=1_200.0, arrives_in_ms=5.0)


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(ms_to_ns(milliseconds))


def waiting(*captured_ms: float) -> OnHand[str]:
    on_hand: OnHand[str] = OnHand(SLO_MS)
    for one in captured_ms:
        assert on_hand.add(at(one), f"{one:g}") == []
    return on_hand


def test_the_oldest_that_can_be_sent_goes_first_and_waits_no_longer() -> None:
    on_hand = waiting(0, 40, 80)
    assert on_hand.next_to_send(lambda captured: SMALL if captured >= at(40) else None, at(80)) == (at(40), "40", SMALL)
    assert on_hand.all() == ["0", "80"]


def test_while_none_can_be_sent_all_go_on_waiting() -> None:
    on_hand = waiting(0, 40)
    assert on_hand.next_to_send(lambda captured: None, at(40)) is None
    assert on_hand.all() == ["0", "40"]
    assert on_hand.next_to_send(lambda captured: SMALL, at(40)) is None, "none is left"


def test_the_next_has_its_turn_when_the_last_is_encoded() -> None:
    on_hand = waiting(0, 40, 80)
    assert on_hand.next_to_send(lambda captured: SMALL, at(80)) == (at(0), "0", SMALL)
    assert on_hand.next_to_send(lambda captured: SMALL, at(81)) is None
    on_hand.handed_over(at(10))
    assert on_hand.next_to_send(lambda captured: SMALL, at(82)) is None, "that was another frame"
    on_hand.handed_over(at(0))
    assert on_hand.next_to_send(lambda captured: SMALL, at(83)) == (at(40), "40", SMALL)


def test_a_frame_that_is_chosen_and_never_encoded_holds_the_next_up_until_its_deadline() -> None:
    on_hand = waiting(0, 40)
    assert on_hand.next_to_send(lambda captured: SMALL, at(80)) == (at(0), "0", SMALL)
    assert on_hand.next_to_send(lambda captured: SMALL, at(99.9)) is None
    assert on_hand.next_to_send(lambda captured: SMALL, at(100)) == (at(40), "40", SMALL)


def test_frames_stay_in_order() -> None:
    on_hand = waiting(0, 40, 80)
    assert on_hand.passed_over(at(80)) == ["0", "40"]
    assert on_hand.all() == ["80"]


def test_a_frame_waits_until_its_deadline() -> None:
    on_hand = waiting(0, 40)
    assert on_hand.given_up(at(99.9)) == []
    assert on_hand.given_up(at(100)) == ["0"]
    assert on_hand.all() == ["40"]


def test_one_of_two_frames_of_the_same_instant_can_go() -> None:
    on_hand: OnHand[object] = OnHand(SLO_MS)
    left, right = object(), object()
    for one in (left, right):
        on_hand.add(at(0), one)
    on_hand.remove(left)
    on_hand.remove(left)
    assert on_hand.all() == [right]


@given(st.lists(st.tuples(st.sampled_from("asgp"), st.floats(0.0, 50.0))))
def test_every_frame_leaves_once_in_order_and_few_wait_at_once(steps: list[tuple[str, float]]) -> None:
    on_hand: OnHand[int] = OnHand(SLO_MS)
    now_ms, added, left = 0.0, 0, []
    for what, later_ms in steps:
        now_ms += later_ms
        if what == "a":
            left += on_hand.add(at(now_ms), added)
            added += 1
        elif what == "s" and (found := on_hand.next_to_send(lambda captured: SMALL, at(now_ms))):
            left.append(found[1])
            on_hand.handed_over(found[0])
        elif what == "g":
            left += on_hand.given_up(at(now_ms))
        elif what == "p":
            left += on_hand.passed_over(at(now_ms))
        assert added - len(left) <= MOST
    left += on_hand.all()
    assert left == list(range(added))
