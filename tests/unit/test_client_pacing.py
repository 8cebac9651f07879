from __future__ import annotations

import pytest

from client.pacing import Pacer, Schedule, source_index, tick_count, ticks_after
from moonjelly.clock import ManualClock
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant


def pacer(fps: float, count: int | None, clock: ManualClock) -> Pacer:
    return Pacer(Schedule(ClientInstant(1000), fps, count), clock)


def test_ticks_come_at_the_nominal_rate_without_drift() -> None:
    schedule = Schedule(ClientInstant(7), 29.97)
    assert schedule.instant(0) == 7
    assert schedule.instant(2997) == 7 + 100 * NS_PER_S


def test_every_tick_is_handed_out_once_also_those_that_were_missed() -> None:
    clock = ManualClock(1000)
    one = pacer(10.0, 5, clock)
    assert one.due() == [0]
    assert one.due() == []
    assert one.wait_s() == pytest.approx(0.1)
    clock.advance_ns(99 * NS_PER_MS)
    assert one.due() == []
    assert one.wait_s() == pytest.approx(0.001)
    clock.advance_ns(NS_PER_MS)
    assert one.due() == [1]
    clock.advance_ns(250 * NS_PER_MS)
    assert one.due() == [2, 3]
    assert not one.finished
    clock.advance_ns(NS_PER_S)
    assert one.due() == [4]
    assert one.finished
    assert one.due() == []


def test_it_does_not_start_early() -> None:
    clock = ManualClock(0)
    one = pacer(10.0, 5, clock)
    assert one.due() == []
    assert one.wait_s() == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("seconds", "fps", "count"),
    [(20.0, 29.97, 599), (10.0, 0.1, 1), (0.3, 10.0, 3), (20.0, 12.0, 240), (None, 15.0, None), (0.01, 10.0, 0)],
)
def test_tick_count(seconds: float | None, fps: float, count: int | None) -> None:
    assert tick_count(seconds, fps) == count


@pytest.mark.parametrize("fps", [29.97, 15.0, 12.0, 0.3])
@pytest.mark.parametrize(("warmup_s", "seconds"), [(8.0, 30.0), (0.0, 20.0), (8.0, 60.0), (0.4, 1.0)])
def test_frames_after_the_warm_up_are_those_that_a_run_captures_there(
    warmup_s: float, seconds: float, fps: float
) -> None:
    schedule = Schedule(ClientInstant(0), fps, tick_count(warmup_s + seconds, fps))
    instants = [schedule.instant(tick) for tick in range(schedule.count or 0)]
    assert ticks_after(warmup_s, seconds, fps) == sum(at >= warmup_s * NS_PER_S for at in instants)


def test_a_recording_plays_at_its_own_pace_whatever_the_rate_of_the_client() -> None:
    assert [source_index(tick, 12.0, 24.0) for tick in range(4)] == [0, 2, 4, 6]
    assert [source_index(tick, 24.0, 24.0) for tick in range(4)] == [0, 1, 2, 3]
    assert [source_index(tick, 30.0, 15.0) for tick in range(5)] == [0, 0, 1, 1, 2]
    assert [source_index(tick, 15.0, None) for tick in range(3)] == [0, 1, 2]
    # 29.97 from 29.97 must not lose a frame to rounding
    assert [source_index(tick, 29.97, 29.97) for tick in range(2000)] == list(range(2000))
