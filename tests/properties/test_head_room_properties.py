"""How much of a device may be planned: a share of short batches, all but the same time of long ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.planning.head_room import FULL_HEAD_ROOM_MS, limit_fps
from tests.support.planning import profile

MS = st.floats(0.1, 10_000.0)
RHO = st.floats(0.01, 1.0)
SPEED = st.floats(0.1, 4.0)


def limit(latency_ms: float, rho: float, speed: float = 1.0) -> float:
    return limit_fps(profile(((latency_ms,),), (0.4,)), 0, 1, speed, rho)


def free_ms(latency_ms: float, rho: float) -> float:
    """What the frames at the limit leave of a batch's time."""
    return latency_ms * (1.0 - limit(latency_ms, rho) * latency_ms / 1000.0)


@given(MS, RHO)
def test_a_batch_keeps_its_share_free_but_no_more_than_one_of_full_head_room(latency_ms: float, rho: float) -> None:
    kept = min(latency_ms, FULL_HEAD_ROOM_MS)
    assert free_ms(latency_ms, rho) == pytest.approx((1.0 - rho) * kept, rel=1e-6, abs=1e-6)


@given(MS, MS, RHO)
def test_a_device_that_takes_longer_is_never_offered_more(first_ms: float, second_ms: float, rho: float) -> None:
    short, long = sorted((first_ms, second_ms))
    assert limit(long, rho) <= limit(short, rho) * (1.0 + 1e-12)


@given(MS, RHO, SPEED)
def test_speed_counts_as_shorter_batches(latency_ms: float, rho: float, speed: float) -> None:
    assert limit(latency_ms, rho, speed) == pytest.approx(limit(latency_ms / speed, rho))


@given(MS)
def test_without_head_room_all_of_the_throughput_may_be_planned(latency_ms: float) -> None:
    assert limit(latency_ms, 1.0) == pytest.approx(1000.0 / latency_ms)
