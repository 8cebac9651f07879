"""What holds for any device and any sequence of batches."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from moonjelly.device_speed import FIXED_NS, MAX_STEPS, PROFILED, STEP, DeviceSpeed, observe, recovered
from moonjelly.units import NS_PER_MS, NS_PER_S

SLOWEST = round(STEP**MAX_STEPS, 3)
batches = st.lists(
    st.tuples(
        st.integers(0, 60 * NS_PER_S),  # idle before
        st.one_of(st.integers(0, 50 * NS_PER_MS), st.integers(0, 30 * NS_PER_S)),  # measured
        st.integers(1, 200 * NS_PER_MS),  # profiled
    ),
    max_size=60,
)


def after(sequence: list[tuple[int, int, int]]) -> DeviceSpeed:
    state, now_ns = PROFILED, 0
    for idle_ns, measured_ns, profiled_ns in sequence:
        now_ns += idle_ns + measured_ns
        state = observe(state, now_ns, measured_ns, profiled_ns)
    return state


def work(state: DeviceSpeed, slowdown: float, profiled_ns: int, seconds: float) -> DeviceSpeed:
    """A device that is so much slower works for so long."""
    measured_ns = round(slowdown * profiled_ns) + FIXED_NS
    now_ns = state.measured_until_ns
    for _ in range(round(seconds * NS_PER_S / measured_ns)):
        now_ns += measured_ns
        state = observe(state, now_ns, measured_ns, profiled_ns)
    return state


@given(batches)
def test_the_speed_stays_within_its_bounds(sequence: list[tuple[int, int, int]]) -> None:
    state = after(sequence)
    assert SLOWEST <= state.speed <= 1.0
    assert state.slowdown <= state.held


@settings(deadline=None)
@given(batches, st.floats(0.3, 15.0), st.integers(5 * NS_PER_MS, 60 * NS_PER_MS))
def test_any_constant_slowdown_is_found_from_anywhere(
    sequence: list[tuple[int, int, int]], slowdown: float, profiled_ns: int
) -> None:
    """Batches take no longer than believed but for the hysteresis, and no step is given away."""
    state = work(after(sequence), slowdown, profiled_ns, 25.0 * max(1.0, slowdown))
    assert state.speed * slowdown <= 1.075
    assert state.speed == 1.0 or state.speed * slowdown >= STEP
    assert work(state, slowdown, profiled_ns, 2.0).speed == state.speed


@settings(deadline=None)
@given(batches, st.floats(0.3, 0.95))
def test_every_device_recovers_by_work_and_by_idling(sequence: list[tuple[int, int, int]], slowdown: float) -> None:
    state = after(sequence)
    assert work(state, slowdown, 10 * NS_PER_MS, 12.0).speed == 1.0
    assert recovered(state, state.measured_until_ns + 120 * NS_PER_S).speed == 1.0


@given(batches, st.integers(0, 120 * NS_PER_S), st.integers(0, 120 * NS_PER_S))
def test_how_often_an_idle_device_is_looked_at_does_not_matter(
    sequence: list[tuple[int, int, int]], first_ns: int, then_ns: int
) -> None:
    state = after(sequence)
    at_ns = state.measured_until_ns + first_ns + then_ns
    once, twice = recovered(state, at_ns), recovered(recovered(state, at_ns - then_ns), at_ns)
    assert abs(once.held - twice.held) < 1e-9 * once.held
    assert once.speed >= state.speed


@settings(deadline=None)
@given(batches, st.floats(1.0, 1000.0), st.integers(NS_PER_MS, 60 * NS_PER_MS))
def test_one_stall_of_any_length_costs_no_speed(
    sequence: list[tuple[int, int, int]], stall: float, profiled_ns: int
) -> None:
    state = work(after(sequence), 0.95, 20 * NS_PER_MS, 15.0)
    measured_ns = round(stall * profiled_ns)
    assert observe(state, state.measured_until_ns + measured_ns, measured_ns, profiled_ns).speed == 1.0
