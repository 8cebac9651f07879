"""Belts and drift for any values: travel can be undone, nothing touches, conditions stay within what they join."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moonjelly.scenes import LAYOUTS, Conditions, Drift, Keyframe
from moonjelly.scenes.camera import draw_camera
from moonjelly.scenes.layout import Belt, BeltKind, draw_belts, draw_layout
from moonjelly.scenes.traffic import CELLS_PER_BELT, Traffic

shares = st.floats(0.0, 1.0)
mixes = st.lists(st.floats(0.01, 10.0), min_size=6, max_size=6).map(tuple)
conditions = st.builds(
    Conditions, daylight=shares, rain=shares, fog=shares, snow=shares, density=st.floats(0.0, 2.5), mix=mixes
)
belts = st.builds(
    Belt,
    kind=st.just(BeltKind.ROAD),
    across=st.booleans(),
    forward=st.booleans(),
    at_m=st.just(0.0),
    start_m=st.just(0.0),
    length_m=st.just(80.0),
    speed_mps=st.floats(0.5, 20.0),
    wave=st.floats(0.0, 0.95),
    period_s=st.floats(5.0, 60.0),
    phase=st.floats(0.0, 6.3),
)


@given(belts, st.floats(-500.0, 5000.0))
def test_travel_can_be_undone(belt: Belt, instant_s: float) -> None:
    assert belt.travelled_m(belt.instant_s(belt.travelled_m(instant_s))) == pytest.approx(
        belt.travelled_m(instant_s), abs=2e-3 * belt.speed_mps * 2.0
    )


@given(belts, st.floats(0.0, 1000.0), st.floats(1e-3, 10.0))
def test_belts_never_run_backwards(belt: Belt, instant_s: float, later_s: float) -> None:
    assert belt.travelled_m(instant_s + later_s) >= belt.travelled_m(instant_s)


@given(conditions, conditions, st.floats(-10.0, 50.0))
def test_drift_stays_between_its_keyframes(first: Conditions, second: Conditions, instant_s: float) -> None:
    now = Drift((Keyframe(0.0, first), Keyframe(30.0, second))).at(instant_s)
    for name in ("daylight", "rain", "fog", "snow", "density"):
        low, high = sorted((getattr(first, name), getattr(second, name)))
        assert low - 1e-9 <= getattr(now, name) <= high + 1e-9
    assert sum(now.shares) == pytest.approx(1.0)


LONGEST_M = {BeltKind.ROAD: 11.5, BeltKind.CYCLE: 1.8, BeltKind.PARKED: 8.2, BeltKind.WALK: 0.7}


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(LAYOUTS), st.floats(0.0, 300.0))
def test_nothing_touches_its_neighbour_on_the_belt(seed: int, name: str, instant_s: float) -> None:
    random = np.random.default_rng(seed)
    layout = draw_layout(random, name)
    camera = draw_camera(random, 640, 360, layout.half_road_m)
    lanes = draw_belts(random, layout, camera)
    actors = Traffic(seed, lanes, camera, Drift.steady(Conditions(density=2.5))).actors(instant_s)
    for number, lane in enumerate(lanes):
        on_it = [actor for actor in actors if actor.track // CELLS_PER_BELT == number]
        along = sorted(actor.x if lane.across else actor.z for actor in on_it)
        assert all(after - before >= LONGEST_M[lane.kind] for before, after in pairwise(along))
