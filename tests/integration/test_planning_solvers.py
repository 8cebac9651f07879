"""CPLEX and HiGHS on the aggregated model: they agree, their bounds hold, and what they cannot do is said."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys

import numpy as np
import pytest

from moonjelly.errors import SolverError
from moonjelly.planning import Client, Device, Problem, check, create_policy, exact
from moonjelly.planning.instances import random_problem
from moonjelly.planning.solvers import cplex
from tests.support.planning import best_by_brute_force, client, problem


def solved(one: Problem, solver: str) -> exact.Solution:
    """Some plan, not the best: with as much time as this machine takes to find one."""
    for time_limit_s in (2.0, 8.0, 32.0):
        with contextlib.suppress(SolverError):
            return exact.solve(one, solver=solver, time_limit_s=time_limit_s)
    return exact.solve(one, solver=solver, time_limit_s=128.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("clients", [8, 12])
def test_both_solvers_find_the_same_optimum(seed: int, clients: int) -> None:
    one = random_problem(np.random.default_rng(seed), devices=2, clients=clients)
    ours = exact.solve(one, solver="highs")
    theirs = exact.solve(one, solver="cplex")
    assert (ours.solver, theirs.solver) == ("highs", "cplex")
    assert ours.status == theirs.status == "optimal"
    assert ours.shape == theirs.shape
    assert ours.bound == pytest.approx(theirs.bound, rel=1e-7)
    for solution in (ours, theirs):
        assert check(one, solution.plan).valid
        assert solution.accuracy <= solution.bound * (1 + 1e-9)
        assert solution.proven == (solution.gap <= 1e-6)
        assert exact.upper_bound(one) >= solution.bound - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_what_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = problem(
        [
            Client(index, float(rng.choice([20.0, 30.0, 50.0])), 100.0, tuple(sorted(rng.uniform(0, 45, 3))[::-1]))
            for index in range(5)
        ],
        2,
        rho=0.5,
    )
    solution = exact.solve(one, solver="highs")
    effectiveness, accuracy = best_by_brute_force(one)
    assert check(one, solution.plan).effectiveness == effectiveness
    assert solution.bound >= accuracy - 1e-9
    if solution.proven:
        assert solution.accuracy == pytest.approx(accuracy)


def few(seed: int, devices: list[Device]) -> Problem:
    """So few clients that every plan can be tried."""
    rng = np.random.default_rng(seed)
    clients = [
        Client(index, float(rng.choice([20.0, 30.0, 50.0])), 100.0, tuple(sorted(rng.uniform(20, 60, 3))[::-1]))
        for index in range(5)
    ]
    return problem(clients, devices, rho=0.6)


@pytest.mark.parametrize("speed", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_the_tightened_bound_is_what_brute_force_finds(seed: int, speed: float) -> None:
    one = few(seed, [Device(0, "gpu"), Device(1, "gpu", speed)])
    effectiveness, accuracy = best_by_brute_force(one)
    assert effectiveness == 1.0
    for least in (0.0, accuracy):
        assert exact.tightened_bound(one, least) == pytest.approx(accuracy, rel=1e-6)
    assert accuracy * (1 - 1e-9) <= exact.tightened_bound(one, 1.05 * accuracy) <= 1.05 * accuracy


def test_nothing_is_proven_without_a_common_unit_or_of_too_many_devices() -> None:
    uneven = problem([client(1, 29.97), client(2, 10.0 * 2**0.5)])
    assert exact.tightened_bound(uneven, 0.0) == math.inf
    many = random_problem(np.random.default_rng(1), devices=16, clients=160)
    assert exact.tightened_bound(many, 0.0) == math.inf


def test_a_gap_that_packing_leaves_is_closed() -> None:
    rng = np.random.default_rng(1576719952)
    one = [random_problem(rng, devices=4, clients=32) for _ in range(29)][-1]
    accuracy = check(one, create_policy("multiset").plan(one)).accuracy
    assert exact.upper_bound(one) > 1.005 * accuracy
    assert exact.tightened_bound(one, accuracy) == pytest.approx(accuracy, rel=1e-6)


def test_a_client_that_packing_leaves_out_finds_a_place() -> None:
    one = random_problem(np.random.default_rng([0, 4, 16, 10]), devices=4, clients=16)
    solution = exact.solve(one)
    assert solution.proven
    report = check(one, solution.plan)
    assert report.valid
    assert report.effectiveness == 1.0
    assert report.accuracy > 0.42


def test_a_plan_that_the_aggregated_model_does_not_see_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one = few(0, [Device(0, "gpu"), Device(1, "gpu")])
    _, accuracy = best_by_brute_force(one)
    poor = create_policy("fixed", {"variant": "0"}).plan(one)
    assert check(one, poor).effectiveness == 1.0
    assert check(one, poor).accuracy < accuracy
    monkeypatch.setattr(exact, "_pack", lambda *_: poor)  # as if the model's devices packed no better
    solution = exact.solve(one)
    assert solution.proven
    assert check(one, solution.plan).accuracy == solution.accuracy == pytest.approx(accuracy)


def test_overload_places_as_many_as_brute_force_does() -> None:
    clients = [client(index, fps, (12.0, 12.0, 0.0)) for index, fps in enumerate((150.0, 150.0, 90.0, 200.0, 60.0))]
    one = problem(clients, 1)
    solution = exact.solve(one, solver="highs")
    effectiveness, accuracy = best_by_brute_force(one)
    assert check(one, solution.plan).effectiveness == effectiveness < 1.0
    assert solution.accuracy == pytest.approx(accuracy)


def test_a_case_beyond_the_community_edition_is_said_in_one_line() -> None:
    one = random_problem(np.random.default_rng(1), devices=16, clients=160)
    with pytest.raises(
        SolverError, match=r"takes 1000 variables and 1000 rows, this problem has 1\d\d\d and 1\d\d\d; in"
    ):
        exact.solve(one, solver="cplex", time_limit_s=1.0)


def test_eight_devices_and_sixty_four_clients_fit_the_community_edition() -> None:
    one = random_problem(np.random.default_rng(1), devices=8, clients=64)
    solution = solved(one, "cplex")
    assert max(solution.shape) <= cplex.COMMUNITY_LIMIT
    assert check(one, solution.plan).valid


def test_a_limit_below_a_second_is_taken_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SolverError):  # on a machine that is slower
        exact.solve(problem([client(1)], 1), solver="cplex", time_limit_s=0.25)
    assert capsys.readouterr() == ("", "")


def test_auto_takes_highs_for_what_cplex_refuses() -> None:
    one = random_problem(np.random.default_rng(1), devices=16, clients=160)
    assert solved(one, "auto").solver == "highs"


def test_a_missing_solver_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cplex, "available", lambda: False)
    one = problem([client(1)], 1)
    with pytest.raises(
        SolverError, match="CPLEX is not installed; pip install docplex cplex, or choose solver 'highs'"
    ):
        exact.solve(one, solver="cplex")
    assert exact.solve(one, solver="auto").solver == "highs"


def test_no_time_at_all_is_said_in_one_line() -> None:
    one = random_problem(np.random.default_rng(1), devices=8, clients=64)
    with pytest.raises(
        SolverError, match=r"highs found no plan within .* s; give it more time or use policy 'multiset'"
    ):
        exact.solve(one, solver="highs", time_limit_s=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_is_close_to_the_optimum(seed: int) -> None:
    one: Problem = random_problem(np.random.default_rng(100 + seed), devices=4, clients=16)
    best = exact.solve(one, solver="auto")
    found = check(one, create_policy("multiset").plan(one))
    assert found.accuracy >= 0.995 * best.bound
    assert found.accuracy <= best.bound * (1 + 1e-9)


def test_planning_is_light_until_a_solver_is_needed() -> None:
    script = (
        "import sys; from moonjelly.planning import create_policy, policy_names\n"
        "for name in policy_names(): create_policy(name)\n"
        "print(sorted({'torch', 'grpc', 'highspy', 'docplex', 'cplex', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
