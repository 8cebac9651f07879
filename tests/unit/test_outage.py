"""When a connection is given up, and how often a new one is tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.outage import (
    FIRST_RETRY_MS,
    LAST_RETRY_MS,
    LOOK_AGAIN_MS,
    MAX_RETRY_MS,
    MAX_SILENCE_MS,
    SILENCE_MS,
    Silence,
    outage_after_ms,
    retry_after_ms,
)
from moonjelly.units import ClientInstant, ms_to_ns

AFTER_MS = 700.0


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(1_000_000_000 + ms_to_ns(milliseconds))


class TestOutageAfter:
    def test_two_lost_retransmissions_and_a_round_trip_are_enough_for_short_deadlines(self) -> None:
        assert outage_after_ms(75.0, 30.0) == SILENCE_MS + 30.0

    def test_a_frame_that_may_still_be_in_time_is_waited_for(self) -> None:
        assert outage_after_ms(1_200.0, 30.0) == 1_230.0

    def test_long_deadlines_do_not_delay_it_for_ever(self) -> None:
        assert outage_after_ms(30_000.0, 30.0) == MAX_SILENCE_MS + 30.0

    def test_bytes_on_a_slow_link_take_their_time(self) -> None:
        assert outage_after_ms(100.0, 0.0, transfer_ms=800.0) == SILENCE_MS + 800.0
        assert outage_after_ms(100.0, 0.0, transfer_ms=60_000.0) == MAX_SILENCE_MS

    @given(st.floats(1.0, 1e5), st.floats(0.0, 1_000.0), st.floats(0.0, 1e6))
    def test_it_is_noticed_within_three_seconds(self, slo_ms: float, rtt_ms: float, transfer_ms: float) -> None:
        assert SILENCE_MS <= outage_after_ms(slo_ms, rtt_ms, transfer_ms) <= 3_000.0


class TestRetryAfter:
    def test_the_first_attempts_come_quickly_and_later_ones_by_how_long_it_has_been(self) -> None:
        times = [retry_after_ms(gone_ms, 10.0) for gone_ms in (0.0, 5_000.0, 8_000.0, 60_000.0)]
        assert times == [FIRST_RETRY_MS, 250.0, 400.0, LAST_RETRY_MS]

    def test_a_long_round_trip_has_the_time_that_opening_takes(self) -> None:
        assert retry_after_ms(0.0, 100.0) == 800.0
        assert retry_after_ms(0.0, 5_000.0) == MAX_RETRY_MS

    @given(st.floats(0.0, 1e6), st.floats(0.0, 75.0))
    def test_a_link_that_returns_is_found_within_a_second(self, gone_ms: float, rtt_ms: float) -> None:
        assert FIRST_RETRY_MS <= retry_after_ms(gone_ms, rtt_ms) <= LAST_RETRY_MS


class TestSilence:
    def test_nothing_asked_nothing_due(self) -> None:
        silence = Silence()
        assert silence.next_look is None
        assert not silence.look(at(60_000.0))

    def test_it_lasts_from_the_first_question(self) -> None:
        silence = Silence()
        silence.asked(at(10.0), AFTER_MS)
        silence.asked(at(500.0), AFTER_MS)
        assert silence.next_look == at(10.0 + AFTER_MS - LOOK_AGAIN_MS)
        assert not silence.look(at(10.0 + AFTER_MS - LOOK_AGAIN_MS))
        assert silence.next_look == at(10.0 + AFTER_MS)
        assert not silence.look(at(10.0 + AFTER_MS - 1.0))
        assert silence.look(at(10.0 + AFTER_MS))

    def test_or_from_the_last_answer_while_others_are_due(self) -> None:
        silence = Silence()
        silence.asked(at(10.0), AFTER_MS)
        silence.heard(at(600.0), more_due=True)
        assert silence.next_look == at(600.0 + AFTER_MS - LOOK_AGAIN_MS)
        silence.heard(at(700.0), more_due=False)
        assert silence.next_look is None

    def test_a_client_that_was_not_running_reads_what_has_arrived_before_it_gives_up(self) -> None:
        silence = Silence()
        silence.asked(at(0.0), AFTER_MS)
        assert not silence.look(at(5_000.0))
        assert silence.next_look == at(5_000.0 + LOOK_AGAIN_MS)
        silence.heard(at(5_001.0), more_due=True)
        assert not silence.look(at(5_000.0 + LOOK_AGAIN_MS))
        assert silence.next_look == at(5_001.0 + AFTER_MS - LOOK_AGAIN_MS)

    def test_what_is_asked_later_may_take_its_own_time(self) -> None:
        silence = Silence()
        silence.asked(at(0.0), AFTER_MS)
        silence.asked(at(50.0), 1_500.0)
        assert silence.next_look == at(1_500.0 - LOOK_AGAIN_MS)

    def test_a_new_stream_begins_anew(self) -> None:
        silence = Silence()
        silence.asked(at(0.0), AFTER_MS)
        assert not silence.look(at(AFTER_MS))
        silence.stop()
        silence.asked(at(1_000.0), AFTER_MS)
        assert not silence.look(at(1_000.0 + AFTER_MS)), "the last stream's look does not count"

    @pytest.mark.parametrize("late_ms", [0.0, 1.0, 3_000.0])
    def test_looking_when_due_ends_in_a_verdict(self, late_ms: float) -> None:
        silence = Silence()
        silence.asked(at(0.0), AFTER_MS)
        looks = 0
        while (due := silence.next_look) is not None:
            looks += 1
            if silence.look(ClientInstant(due + ms_to_ns(late_ms))):
                break
        assert looks == 2
