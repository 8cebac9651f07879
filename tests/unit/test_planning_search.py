"""Subset sums, local search, admission, churn and the time budget, on problems small enough to know the answer."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from moonjelly.clock import ManualClock
from moonjelly.errors import ConfigError
from moonjelly.planning import Client, Device, Plan, Problem, check, create_policy, keep_previous
from moonjelly.planning.annealing import Annealer, Solution
from moonjelly.planning.changes import WINDOW_NS, RecentChanges
from moonjelly.planning.instances import draw_fleet, random_problem
from moonjelly.planning.multiset import Multiset
from moonjelly.planning.packing import Packer
from moonjelly.planning.sharing import apportion
from moonjelly.planning.tables import Tables, compile_tables
from moonjelly.reference import reference_profile
from moonjelly.types import DEFAULT_GROUP
from tests.support.planning import best_by_brute_force, client, problem, profile


def highest_load_by_brute_force(tables: Tables, lane: int) -> int:
    one = tables.lanes[lane]
    types = [index for index, members in enumerate(tables.members) for _ in members]
    best = 0
    for size in range(len(types) + 1):
        for chosen in itertools.combinations(types, size):
            patience = min((one.max_batch[index] for index in chosen), default=1)
            load = sum(tables.rate[index] for index in chosen)
            if patience and load <= one.capacity[patience]:
                best = max(best, load)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_a_device_takes_the_highest_load_that_any_batch_allows(seed: int) -> None:
    tables = compile_tables(random_problem(np.random.default_rng(seed), devices=1, clients=10))
    packer = Packer(tables)
    for lane in range(len(tables.lanes)):
        assert packer.step(lane, tables.full)[0] == highest_load_by_brute_force(tables, lane)


def test_among_equals_a_device_takes_the_client_that_fewer_variants_could_serve() -> None:
    flexible, bound = client(1, 10.0), client(2, 10.0, (90.0, 90.0, 0.0))
    tables = compile_tables(problem([flexible, bound], 1, rho=0.1))  # room for one at 0.1 * 200 frames/s
    lane = next(index for index, one in enumerate(tables.lanes) if one.variant == 1)
    _, left = Packer(tables).step(lane, tables.full)
    assert [tables.members[index] for index, count in enumerate(left) if count] == [(0,)]


@pytest.mark.parametrize(
    ("rates", "unit"),
    [((10.0, 15.0, 25.0), 5.0), ((30.0, 60.0), 30.0), ((29.97,), 29.97), ((12.0, 24.0, 30.0), 6.0), ((0.5, 2.0), 0.5)],
)
def test_the_unit_divides_the_rates_where_it_can(rates: tuple[float, ...], unit: float) -> None:
    tables = compile_tables(problem([client(index, fps) for index, fps in enumerate(rates)]))
    assert tables.unit == pytest.approx(unit)
    assert tables.on_grid


@pytest.mark.parametrize("rates", [(7.0, 12.0, 24.0, 29.97, 30.0, 60.0), (math.pi, math.e, 1e-3), (0.01, 120.0)])
def test_any_rates_fit_a_short_grid_from_above(rates: tuple[float, ...]) -> None:
    clients = [client(index, fps) for index, fps in enumerate(rates)]
    tables = compile_tables(problem(clients))
    assert tables.load(tables.full) <= 1024 + len(rates)
    for rate, members in zip(tables.rate, tables.members, strict=True):
        assert all(rate * tables.unit >= clients[one].fps - 1e-9 for one in members)


def test_more_equal_clients_than_a_byte_counts() -> None:
    one = problem([client(index, 0.5) for index in range(700)], 3)
    report = check(one, create_policy("multiset").plan(one))
    assert report.valid
    assert report.effectiveness == 1.0


def random_small_problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    clients = [
        Client(
            index,
            float(rng.choice([20.0, 29.97, 40.0, 55.0])),
            100.0,
            tuple(sorted(rng.uniform(0.0, 45.0, 3), reverse=True)),
        )
        for index in range(4)
    ]
    return problem(clients, 2, rho=0.5)


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_what_brute_force_finds(seed: int) -> None:
    one = random_small_problem(seed)
    report = check(one, create_policy("multiset").plan(one))
    effectiveness, accuracy = best_by_brute_force(one)
    assert report.effectiveness == effectiveness
    assert report.accuracy == pytest.approx(accuracy, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clients", [16, 30])
def test_the_search_is_no_worse_than_sa_dp_and_both_place_everyone(seed: int, clients: int) -> None:
    one = random_problem(np.random.default_rng(seed), devices=4, clients=clients)
    ours = check(one, create_policy("multiset").plan(one))
    theirs = check(one, create_policy("sa-dp").plan(one))
    assert (ours.effectiveness, theirs.effectiveness) == (1.0, 1.0)
    assert ours.accuracy >= theirs.accuracy * 0.9995


def test_an_overloaded_box_admits_as_many_as_it_can_hold_and_of_these_the_heaviest() -> None:
    heavy = [client(index, 100.0, (12.0, 0.0, 0.0)) for index in range(3)]
    light = [client(10 + index, 10.0, (12.0, 0.0, 0.0)) for index in range(20)]
    one = problem([*heavy, *light], 1)  # below 400 frames/s at batch 2
    plan = create_policy("multiset").plan(one)
    report = check(one, plan)
    assert report.valid
    assert len(plan.rejected) == 2
    assert report.accuracy == pytest.approx(0.2 * (2 * 100 + 19 * 10) / 500)


@pytest.mark.parametrize(("name", "options"), [("multiset", {"evaluations": 30}), ("sa-dp", {"origin": "random"})])
def test_the_seed_decides_and_nothing_else(name: str, options: dict[str, object]) -> None:
    one = random_problem(np.random.default_rng(5), devices=8, clients=64)
    policy = create_policy(name, options)
    assert policy.plan(one, seed=1) == policy.plan(one, seed=1)
    assert any(policy.plan(one, seed=1) != policy.plan(one, seed=seed) for seed in range(2, 8))


class TickingClock(ManualClock):
    """Each look at it takes a millisecond."""

    def now_ns(self) -> int:
        self.advance_ns(1_000_000)
        return super().now_ns()


@pytest.mark.parametrize("name", ["multiset", "sa-dp", "proteus"])
def test_a_search_that_is_cut_short_ends_in_a_valid_plan(name: str) -> None:
    one = random_problem(np.random.default_rng(5), devices=8, clients=64)
    clock = TickingClock()
    plan = create_policy(name).plan(one, time_budget_ms=3.0, clock=clock)
    assert check(one, plan).valid
    assert clock.instant_ns <= 6_000_000


def test_a_change_must_bring_what_it_costs() -> None:
    before = random_problem(np.random.default_rng(5), devices=8, clients=64)
    plan = create_policy("multiset").plan(before)
    again = Problem(before.clients, before.devices, before.profiles, plan, rho=before.rho)
    assert check(again, create_policy("multiset", {"churn": 1.0}).plan(again, seed=9)).changes == 0


def test_a_restless_fleet_changes_less_and_loses_little() -> None:
    rng = np.random.default_rng(3)
    fleet = draw_fleet(rng, 64)
    plan = create_policy("multiset").plan(fleet.problem(8))
    calm, restless, accuracy = 0, 0, []
    for step in range(12):
        fleet = fleet.walked(rng)
        one = fleet.problem(8, previous=plan)
        following, resting = (
            check(one, create_policy("multiset").plan(replace(one, changes_per_min=changes), seed=step))
            for changes in (0.0, 30.0)
        )
        calm, restless = calm + following.changes, restless + resting.changes
        accuracy.append(resting.accuracy / following.accuracy)
        plan = create_policy("multiset").plan(one, seed=step)
    assert restless < calm / 2
    assert min(accuracy) > 0.97


def test_changes_are_forgotten() -> None:
    two = (Device(0, "gpu"), Device(1, "gpu"))
    recent = RecentChanges(devices=two).after(4, two, 0).after(2, two, WINDOW_NS)
    assert recent.count == pytest.approx(1.0 + 2.0 / math.e)
    assert recent.per_min(WINDOW_NS) == pytest.approx(4.0 * recent.count)
    assert recent.per_min(100 * WINDOW_NS) == pytest.approx(0.0, abs=1e-9)
    assert RecentChanges().after(3, (), 5).count == 3.0


def test_changes_that_a_device_calls_for_are_not_counted() -> None:
    before, slower = (Device(0, "gpu"),), (Device(0, "gpu", 0.5),)
    recent = RecentChanges(devices=before).after(1, slower, 0)
    assert recent.count == 0.0
    assert recent.after(1, slower, 0).count == 1.0


def test_equal_variants_stay_on_the_devices_that_hold_them() -> None:
    one = random_problem(np.random.default_rng(5), devices=8, clients=64)
    plan = create_policy("multiset").plan(one)
    shuffled = Plan(
        tuple(
            type(here)(here.device_id, there.group, there.variant, there.batch, there.clients)
            for here, there in zip(plan.assignments, reversed(plan.assignments), strict=True)
        )
    )
    again = Problem(one.clients, one.devices, one.profiles, shuffled, rho=one.rho)
    assert check(again, create_policy("multiset", {"churn": 1.0}).plan(again)).changes == 0


def test_light_load_is_served_at_each_ones_best_without_a_search() -> None:
    one = random_problem(np.random.default_rng(1), devices=8, clients=2)
    clock = TickingClock()
    report = check(one, create_policy("multiset").plan(one, time_budget_ms=1e6, clock=clock))
    best = sum(
        c.fps * max(reference_profile().accuracy[v] for v, budget in enumerate(c.budget_ms) if budget > 61.6)
        for c in one.clients
    )
    assert report.accuracy == pytest.approx(best / sum(c.fps for c in one.clients))


def test_groups_and_kinds_of_device_side_by_side() -> None:
    fast, slow = profile(kind="gpu"), profile(((40.0, 60.0), (80.0, 120.0), (160.0, 240.0)), kind="cpu")
    one = Problem(
        (
            *(Client(index, 20.0, 500.0, (450.0,) * 3, "day") for index in range(6)),
            *(Client(10 + index, 5.0, 500.0, (450.0,) * 3, "night") for index in range(3)),
        ),
        (Device(0, "gpu"), Device(1, "cpu"), Device(2, "gpu", 0.5)),
        {("gpu", "day"): fast, ("gpu", "night"): fast, ("cpu", "night"): slow},
        rho=1.0,
    )
    plan = create_policy("multiset").plan(one)
    report = check(one, plan)
    assert report.violations == ()
    assert report.effectiveness == 1.0
    assert {assignment.group for assignment in plan.assignments} == {"day", "night"}
    assert report.accuracy == pytest.approx((6 * 20 * 0.4 + 3 * 5 * 0.3) / 135)


def test_the_fallback_lowers_a_client_that_no_longer_fits() -> None:
    plan = create_policy("multiset").plan(problem([client(1), client(2, budget_ms=(90.0, 0.0, 0.0))]))
    top = plan.device_of(1)
    assert top is not None
    assert top.variant == 2
    worse = problem([client(1, budget_ms=(40.0, 30.0, 20.0)), client(2, budget_ms=(90.0, 0.0, 0.0))], previous=plan)
    kept = keep_previous(worse)
    report = check(worse, kept)
    assert report.valid
    assert report.changes == 0
    lowered = kept.device_of(1)
    assert lowered is not None
    assert lowered.variant == 0


def test_seats_follow_weights() -> None:
    assert apportion([1.0, 1.0, 2.0], 4) == [1, 1, 2]
    assert apportion([0.4, 0.4, 0.2], 2) == [1, 1, 0]
    assert apportion([0.0, 0.0], 3) == [0, 0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("multiset", {"evaluations": 0}, "'evaluations' = 0"),
        ("multiset", {"churn": -1.0}, "'churn' = -1.0"),
        ("multiset", {"calm": 0.0}, "'calm' = 0.0"),
        ("multiset", {"cold": 1.0}, "temperatures cold = 1.0"),
        ("sa-dp", {"origin": "middle"}, "'origin' = 'middle'; it must be one of previous, random, largest"),
        ("sa-dp", {"cooling": 1.0}, "cooling = 1.0"),
        ("sa-dp", {"threshold": 2.0}, "'threshold' = 2.0"),
        ("fixed-slo-share", {"share": 0.0}, "'share' = 0.0"),
        ("proteus", {"step": 0.0}, "'step' = 0.0"),
        ("exact", {"solver": "abacus"}, "'solver' = 'abacus'; it must be one of auto, cplex, highs"),
        ("exact", {"time_limit_s": 0.0}, "'time_limit_s' = 0.0"),
    ],
)
def test_impossible_options_are_named(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_policy(name, options)


def test_a_fixed_variant_goes_by_name_or_index() -> None:
    one = problem([client(1)], 1)
    assert create_policy("fixed", {"variant": "v1"}).plan(one).assignments[0].variant == 1
    assert create_policy("fixed", {"variant": "0"}).plan(one).assignments[0].variant == 0
    assert create_policy("fixed").plan(one).assignments[0].variant == 2
    with pytest.raises(ConfigError, match="group 'default' has no variant 'v9'; it has v0, v1, v2"):
        create_policy("fixed", {"variant": "v9"}).plan(one)


def test_without_highs_many_devices_start_at_the_best_uniform_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moonjelly.planning.solvers.highs.available", lambda: False)
    one = random_problem(np.random.default_rng(2), devices=16, clients=100)
    report = check(one, Multiset(evaluations=200).plan(one))
    assert report.valid
    assert report.effectiveness == 1.0


def test_the_default_group_of_an_instance() -> None:
    one = random_problem(np.random.default_rng(2), devices=2, clients=4)
    assert {client.group for client in one.clients} == {DEFAULT_GROUP}


def descended(one: Problem, start: tuple[int, ...], most: int = 10_000) -> tuple[Annealer, Solution, Solution]:
    packer = Packer(compile_tables(one))
    annealer = Annealer(packer, (), 0.0, lambda: False)
    before = annealer.rate(start, packer.tables.full)
    return annealer, before, annealer.descend(before, packer.tables.full, most, lambda _: False)


@pytest.mark.parametrize("seed", range(4))
def test_after_the_descent_no_change_of_one_device_is_better(seed: int) -> None:
    one = random_problem(np.random.default_rng(seed), devices=3, clients=12)
    annealer, before, found = descended(one, (2, 7, 12))
    full = compile_tables(one).full
    assert not before.beats(found)
    for index in range(3):
        for lane in range(2 * 16):
            lanes = sorted([*found.lanes[:index], lane, *found.lanes[index + 1 :]])
            if lane // 16 == found.lanes[index] // 16 or lane % 16 == found.lanes[index] % 16:
                assert not annealer.rate(lanes, full).beats(found)


def test_the_descent_leaves_where_annealing_may_end() -> None:
    rng = np.random.default_rng(1576719951)
    one = [random_problem(rng, devices=4, clients=32) for _ in range(25)][-1]
    for start in ((5, 7, 7, 27), (3, 6, 8, 11), (21, 23, 23, 27)):
        _, before, found = descended(one, start)
        assert before.unplaced == found.unplaced == 0
        assert found.score > 1.004 * before.score


def test_the_descent_tries_as_many_as_it_may() -> None:
    one = random_problem(np.random.default_rng(3), devices=3, clients=12)
    _, before, found = descended(one, (0, 7, 15), most=0)
    assert found is before
