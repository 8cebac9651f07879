from __future__ import annotations

from moonjelly.latency_factor import BACKOFF, FIRST_FRAMES, MOST_FRAMES, SAFE, TRIED, UNKNOWN, Promises, observe


def after(state: Promises, kept: int = 0, broken: int = 0) -> Promises:
    for outcome in [True] * kept + [False] * broken:
        state = observe(state, outcome)
    return state


def test_fewer_batches_are_tried_once_enough_promises_were_kept() -> None:
    assert UNKNOWN.latency_factor == SAFE
    assert after(UNKNOWN, FIRST_FRAMES - 1).latency_factor == SAFE
    assert after(UNKNOWN, FIRST_FRAMES).latency_factor == TRIED


def test_a_trial_survives_the_tolerated_share_and_ends_after_a_burst() -> None:
    trial = state = after(UNKNOWN, FIRST_FRAMES)
    for _ in range(50):
        state = after(state, kept=400, broken=1)
    assert state.latency_factor == TRIED
    assert after(trial, broken=2).latency_factor == TRIED
    assert after(trial, broken=10).latency_factor == SAFE


def test_where_promises_are_broken_at_two_batches_fewer_are_never_tried() -> None:
    state = UNKNOWN
    for _ in range(2000):
        state = after(state, kept=19, broken=1)
        assert state.latency_factor == SAFE


def test_trials_that_fail_get_rare() -> None:
    state, waits = UNKNOWN, []
    for _ in range(6):
        frames = 0
        while not state.trying:
            state, frames = observe(state, True), frames + 1
        waits.append(frames)
        while state.trying:
            state = observe(state, False)
    assert waits[:3] == [FIRST_FRAMES, BACKOFF * FIRST_FRAMES, BACKOFF**2 * FIRST_FRAMES]
    assert max(waits) == waits[-1] == MOST_FRAMES
