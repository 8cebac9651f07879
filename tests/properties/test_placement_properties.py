"""A client's place follows the plan and the planner's own conditions."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.placement import (
    BANDWIDTH_CHANGE,
    NO_PROMISE,
    Place,
    Running,
    asked_variant,
    is_broken,
    kept,
    link_changed,
    link_fell,
    newcomer,
    places,
)
from moonjelly.planning import Assignment, Device, Plan, Problem, check, create_policy
from moonjelly.planning.best_effort import devices_for_starved
from moonjelly.planning.cadence import INTERVAL_NS, MIN_INTERVAL_NS, asked_run_ns, periodic_run_ns
from moonjelly.planning.overhead import FIXED_OVERHEAD_MS, MAX_MEASURED_MS, overhead_ms, smoothed_ms
from tests.support.planning import problems, profile

POLICY = create_policy("best-uniform")
PROFILES = {("gpu", "default"): profile()}
BPS = st.floats(1.0, 1e9)


@given(problems())
def test_every_client_has_the_place_that_the_plan_says(problem: Problem) -> None:
    plan = POLICY.plan(problem)
    found = list(places(problem, plan))
    assert sorted(client_id for client_id, _ in found) == sorted(client.client_id for client in problem.clients)
    starved = devices_for_starved(problem, plan)
    clients = {client.client_id: client for client in problem.clients}
    for client_id, place in found:
        assignment = plan.device_of(client_id)
        if assignment is not None:
            assert (place.device_id, place.variant, place.batch) == (
                assignment.device_id, assignment.variant, assignment.batch,
            )  # fmt: skip
            assert place.promised
            assert not is_broken(place, clients[client_id].budget_ms, problem.latency_factor), "fits as planned"
        elif client_id in starved:
            assert (place.device_id, place.variant, place.reason) == (starved[client_id], 0, NO_PROMISE)
            assert not is_broken(place, clients[client_id].budget_ms, problem.latency_factor), "nothing was promised"
        else:
            assert place == Place(reason=plan.rejected[client_id])
            assert place.reason


@given(problems(), st.data())
def test_a_newcomer_that_is_placed_keeps_the_plan_feasible(problem: Problem, data: st.DataObject) -> None:
    """What the rule grants, the planner's checker accepts: one client more on that device."""
    if not problem.clients or not problem.devices:
        return
    *known, new = problem.clients
    before = dataclasses.replace(problem, clients=tuple(known))
    plan = POLICY.plan(before)
    rates = {client.client_id: client.fps for client in known}
    running = [
        Running(device, assignment, sum(rates[one] for one in assignment.clients))
        for device, assignment in zip(problem.devices, plan.assignments, strict=True)
    ]
    shuffled = data.draw(st.permutations(running))
    place = newcomer(new.group, new.fps, new.budget_ms, shuffled, problem.profiles, problem.latency_factor, problem.rho)
    takers = [one for one in running if check(problem, _with(plan, one.device, new.client_id)).valid]
    if place.device_id is None:
        assert place.reason
        assert not takers
    else:
        assert place.promised
        assert place.device_id in {one.device.device_id for one in takers}
        least = min(takers, key=lambda one: (one.load_fps, one.device.device_id))
        assert place.device_id == least.device.device_id


def _with(plan: Plan, device: Device, client_id: int) -> Plan:
    return dataclasses.replace(
        plan,
        assignments=tuple(
            dataclasses.replace(one, clients=(*one.clients, client_id)) if one.device_id == device.device_id else one
            for one in plan.assignments
        ),
    )


def test_a_newcomer_goes_to_the_least_loaded_device_that_can_take_it() -> None:
    running = [
        Running(Device(0, "gpu"), Assignment(0, "default", 2, 2), 20.0),
        Running(Device(1, "gpu"), Assignment(1, "default", 0, 1), 30.0),
        Running(Device(2, "gpu"), Assignment(2, "night", 0, 1), 0.0),
    ]
    roomy = newcomer("default", 10.0, (90.0, 90.0, 90.0), running, PROFILES, 2.0, 0.9)
    assert roomy == Place(0, 2, 2, 20.0, True)
    hurried = newcomer("default", 10.0, (90.0, 90.0, 30.0), running, PROFILES, 2.0, 0.9)
    assert hurried == Place(1, 0, 1, 4.0, True)
    assert newcomer("default", 10.0, (90.0, 90.0, 90.0), running, PROFILES, 2.0, 0.9, before=1).device_id == 1
    assert newcomer("default", 300.0, (90.0, 90.0, 9.0), running, PROFILES, 2.0, 0.9, before=0).device_id is None
    assert newcomer("default", 1e4, (90.0, 90.0, 90.0), running, PROFILES, 2.0, 0.9).device_id is None


@given(problems())
def test_a_place_that_a_plan_gave_is_kept_while_nothing_else_has_changed(problem: Problem) -> None:
    plan = POLICY.plan(problem)
    given_places = dict(places(problem, plan))
    for client in problem.clients:
        before = given_places[client.client_id]
        if not before.promised:
            continue
        others = {one.client_id: one.fps for one in problem.clients if one is not client}
        running = [
            Running(device, assignment, sum(others.get(one, 0.0) for one in assignment.clients))
            for device, assignment in zip(problem.devices, plan.assignments, strict=True)
        ]
        assert kept(before, client.group, client.fps, running, problem.profiles, problem.rho) == before


def test_a_place_is_kept_on_a_device_that_runs_something_slower_by_now_but_not_without_room_or_device() -> None:
    before = Place(0, 0, 1, 4.0, True)
    slower = Running(Device(0, "gpu"), Assignment(0, "default", 2, 2), 100.0)
    assert newcomer("default", 90.0, (90.0, 90.0, 90.0), [slower], PROFILES, 2.0, 0.9).device_id is None
    assert kept(before, "default", 90.0, [slower], PROFILES, 0.9) == before
    assert kept(before, "default", 150.0, [slower], PROFILES, 0.9) is None, "250 frames/s at 4 ms, less a tenth"
    assert kept(before, "night", 90.0, [slower], PROFILES, 0.9) is None
    assert kept(before, "default", 90.0, [Running(Device(1, "gpu"), slower.assignment, 0.0)], PROFILES, 0.9) is None


@pytest.mark.parametrize(
    ("budget_ms", "broken"), [((0.0, 40.0, 0.0), False), ((90.0, 39.9, 90.0), True), ((90.0, 0.0, 90.0), True)]
)
def test_a_place_breaks_when_its_own_variant_runs_out_of_time(budget_ms: tuple[float, ...], broken: bool) -> None:
    assert is_broken(Place(0, 1, 2, 20.0, True), budget_ms, 2.0) is broken
    assert not is_broken(Place(0, 1, 2, 20.0, False, NO_PROMISE), budget_ms, 2.0)


@given(BPS, BPS)
def test_a_link_that_fell_has_changed_and_a_small_change_is_none(now_bps: float, planned_bps: float) -> None:
    if link_fell(now_bps, planned_bps):
        assert now_bps < planned_bps
        assert link_changed(now_bps, planned_bps)
    if link_changed(now_bps, planned_bps) and now_bps < planned_bps * (1.0 - BANDWIDTH_CHANGE - 1e-9):
        assert link_fell(now_bps, planned_bps)
    assert not link_changed(planned_bps, planned_bps)


@given(BPS, BPS, st.lists(st.floats(0.0, 100.0), min_size=3, max_size=3), st.integers(0, 2), st.booleans())
def test_a_client_is_asked_for_less_only_where_its_link_fell(
    now_bps: float, planned_bps: float, budget_ms: list[float], variant: int, promised: bool
) -> None:
    asked_for: list[None] = []

    def budgets() -> list[float]:
        asked_for.append(None)
        return budget_ms

    place = Place(0, variant, 2, 20.0, promised)
    asked = asked_variant(place, now_bps, planned_bps, budgets, 2.0)
    assert asked <= variant
    if not asked_for:
        assert asked == variant
    assert bool(asked_for) == (promised and link_fell(now_bps, planned_bps))
    if asked_for and asked:
        assert budget_ms[asked] >= 2.0 * place.infer_ms


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.integers(1, 2 * INTERVAL_NS))
def test_however_often_a_plan_is_asked_for_runs_keep_their_distance(gaps_ns: list[int], interval_ns: int) -> None:
    now_ns, runs = 0, []
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        begins_ns = asked_run_ns(runs[-1] if runs else None, now_ns, interval_ns)
        assert begins_ns >= now_ns
        if runs:
            assert begins_ns - runs[-1] >= min(MIN_INTERVAL_NS, interval_ns)
            assert begins_ns <= max(now_ns, periodic_run_ns(runs[-1], interval_ns)), "no later than unasked"
        now_ns = begins_ns
        runs.append(begins_ns)


@given(st.lists(st.floats(0.0, MAX_MEASURED_MS), max_size=8))
def test_overhead_is_the_worst_of_the_measured(measured_ms: list[float]) -> None:
    counted = overhead_ms(measured_ms)
    assert FIXED_OVERHEAD_MS <= counted <= FIXED_OVERHEAD_MS + MAX_MEASURED_MS
    assert all(counted >= one for one in measured_ms)


@given(st.floats(0.0, MAX_MEASURED_MS), st.floats(0.0, 1e6))
def test_smoothing_moves_towards_the_sample_within_bounds(before_ms: float, sample_ms: float) -> None:
    after_ms = smoothed_ms(before_ms, sample_ms)
    assert min(before_ms, sample_ms) - 1e-9 <= after_ms <= min(max(before_ms, sample_ms), MAX_MEASURED_MS) + 1e-9
