"""How fast a device is, from its batches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from moonjelly.device_speed import FIXED_NS, IDLE_GRACE_NS, PROFILED, STEP, DeviceSpeed, observe, recovered
from moonjelly.units import NS_PER_MS, NS_PER_S, ns_to_ms

PROFILED_NS = 10 * NS_PER_MS


def run(state: DeviceSpeed, times_ns: Iterable[int], profiled_ns: int = PROFILED_NS, pause_ns: int = 0) -> DeviceSpeed:
    """One batch after another."""
    now_ns = state.measured_until_ns
    for time_ns in times_ns:
        now_ns += pause_ns + time_ns
        state = observe(state, now_ns, time_ns, profiled_ns)
    return state


def slowed(seconds: float, factor: float, state: DeviceSpeed = PROFILED, profiled_ns: int = PROFILED_NS) -> DeviceSpeed:
    """A device that is ``factor`` slower works for so long."""
    time_ns = round(factor * profiled_ns)
    return run(state, [time_ns] * round(seconds * NS_PER_S / time_ns), profiled_ns)


def test_a_device_as_profiled_keeps_full_speed() -> None:
    assert PROFILED.speed == 1.0
    assert slowed(10.0, 1.0).speed == 1.0
    assert slowed(10.0, 0.5).speed == 1.0


@pytest.mark.parametrize("profiled_ms", [2, 3, 5])
def test_jitter_of_some_hundred_microseconds_is_no_slowdown(profiled_ms: int) -> None:
    """It is added to every batch, so a short one takes half as long again now and then; its profile has no margin."""
    jitter_ns = np.random.default_rng(1).exponential(0.2 * NS_PER_MS, 5_000)
    profiled_ns = profiled_ms * NS_PER_MS
    state = PROFILED
    for extra_ns in jitter_ns:
        state = run(state, [round(profiled_ns + extra_ns)], profiled_ns)
        assert state.speed == 1.0


@pytest.mark.parametrize("profiled_ms", [1, 5, 20, 60])
def test_a_single_stall_changes_nothing(profiled_ms: int) -> None:
    profiled_ns = profiled_ms * NS_PER_MS
    state = slowed(5.0, 1.0, profiled_ns=profiled_ns)
    assert run(state, [10 * profiled_ns], profiled_ns).speed == 1.0


def test_stalls_in_a_row_are_forgotten_within_seconds() -> None:
    state = run(slowed(5.0, 1.0), [10 * PROFILED_NS] * 5)
    assert state.speed < 1.0
    assert slowed(8.0, 1.0, state).speed == 1.0


@pytest.mark.parametrize("profiled_ms", [20, 40, 80])
def test_half_the_speed_shows_after_four_long_batches(profiled_ms: int) -> None:
    profiled_ns = profiled_ms * NS_PER_MS
    state = slowed(5.0, 1.0, profiled_ns=profiled_ns)
    assert run(state, [2 * profiled_ns] * 3, profiled_ns).speed > 0.66
    assert run(state, [2 * profiled_ns] * 4, profiled_ns).speed < 0.54


@pytest.mark.parametrize("profiled_ms", [2, 5])
def test_half_the_speed_shows_within_six_tenths_of_a_second_of_work(profiled_ms: int) -> None:
    profiled_ns = profiled_ms * NS_PER_MS
    state = slowed(5.0, 1.0, profiled_ns=profiled_ns)
    assert run(state, [2 * profiled_ns] * 3, profiled_ns).speed <= STEP + 0.1
    assert slowed(0.6, 2.0, state, profiled_ns).speed <= 0.66


def test_a_recovery_shows_step_by_step_within_seconds() -> None:
    state = slowed(2.0, 2.0)
    speeds = []
    for _ in range(12):
        state = slowed(0.5, 0.97, state)
        speeds.append(state.speed)
    assert speeds == sorted(speeds)
    assert speeds[0] < 0.75
    assert speeds[-1] == 1.0


def test_batches_that_are_slow_at_times_cost_their_mean() -> None:
    """Every other batch takes twice as long: two thirds of the throughput are left."""
    state = run(PROFILED, [PROFILED_NS, 2 * PROFILED_NS] * 300)
    assert 0.59 <= state.speed <= 0.7


def test_an_idle_device_is_forgotten_slowly() -> None:
    state = slowed(3.0, 2.0)
    end_ns = state.measured_until_ns
    assert recovered(state, end_ns + IDLE_GRACE_NS) is state
    seen = [recovered(state, end_ns + seconds * NS_PER_S).speed for seconds in range(2, 60)]
    assert seen == sorted(seen)
    assert state.speed == seen[0] < 0.54
    assert 0.6 < seen[8] < 0.8
    assert seen[-1] == 1.0


def test_an_idle_device_says_when_it_is_to_be_looked_at_again() -> None:
    state = slowed(3.0, 2.0)
    steps, looked = state.steps, 0
    while (due_ns := state.recovers_ns) is not None:
        assert recovered(state, due_ns - NS_PER_MS).speed == state.speed
        later = recovered(state, due_ns)
        assert later.speed > state.speed
        state, looked = later, looked + 1
    assert state.speed == 1.0
    assert looked == steps


def test_low_load_is_enough_to_hold_the_estimate() -> None:
    """One frame a second on a slow device: no step up before each of them, none down after."""
    state = slowed(3.0, 2.0)
    before = state.speed
    for _ in range(30):
        state = recovered(state, state.measured_until_ns + NS_PER_S)
        assert state.speed == before
        state = run(state, [2 * PROFILED_NS])
        assert state.speed == before


def test_what_every_batch_costs_alike_does_not_hold_a_device_at_its_smallest_variant() -> None:
    """0.4 ms more per batch is a lot for the smallest variant, and nothing for the one that is planned next."""
    small_ns, large_ns, extra_ns = NS_PER_MS // 2, 8 * NS_PER_MS, 4 * NS_PER_MS // 10
    state = slowed(3.0, 1.0 + extra_ns / small_ns, profiled_ns=small_ns)
    assert state.speed < 0.85
    state = slowed(6.0, 1.0 + extra_ns / large_ns, state, large_ns)
    assert state.speed == 1.0
    assert ns_to_ms(FIXED_NS) == 0.3
