"""Every policy's plan holds every constraint, on any problem."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moonjelly.planning import Problem, check, create_policy, exact, keep_previous
from moonjelly.planning.packing import Packer
from moonjelly.planning.tables import compile_tables
from tests.support.planning import problems

SEARCHERS = {"multiset": {"evaluations": 60}, "sa-dp": {"cooling": 0.9}, "exact": {"solver": "highs"}}
OTHERS = (
    "best-uniform", "model-switching", "max-accuracy", "aws-client", "fixed-slo-share", "proteus", "keep-previous",
)  # fmt: skip
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def assert_valid(problem: Problem, name: str, options: dict[str, object], seed: int) -> None:
    report = check(problem, create_policy(name, options).plan(problem, seed=seed))
    assert report.violations == ()
    assert 0.0 <= report.effectiveness <= 1.0
    assert all(0.0 <= share < 1.0 for share in report.utilisation.values())
    assert report.min_slack_ms >= 0.0


@pytest.mark.parametrize("name", SEARCHERS)
@settings(relaxed, max_examples=100)
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_a_search_always_ends_in_a_valid_plan(name: str, problem: Problem, seed: int) -> None:
    assert_valid(problem, name, SEARCHERS[name], seed)


@pytest.mark.parametrize("name", OTHERS)
@settings(relaxed, max_examples=60)
@given(problem=problems())
def test_a_baseline_always_ends_in_a_valid_plan(name: str, problem: Problem) -> None:
    assert_valid(problem, name, {}, 0)


@settings(relaxed, max_examples=60)
@given(problem=problems(), variant=st.integers(0, 0))
def test_a_fixed_variant_always_ends_in_a_valid_plan(problem: Problem, variant: int) -> None:
    assert_valid(problem, "fixed", {"variant": str(variant)}, 0)


@settings(relaxed, max_examples=100)
@given(problem=problems())
def test_the_fallback_never_changes_a_variant(problem: Problem) -> None:
    report = check(problem, keep_previous(problem))
    assert report.violations == ()
    held = {} if problem.previous is None else {one.device_id: one for one in problem.previous.assignments}
    for device, now in zip(problem.devices, keep_previous(problem).assignments, strict=True):
        before = held.get(device.device_id)
        profile = problem.profiles.get((device.kind, before.group)) if before is not None else None
        if before is not None and profile is not None and before.variant < len(profile.variants):
            assert (now.group, now.variant) == (before.group, before.variant)


@settings(relaxed, max_examples=80)
@given(problem=problems())
def test_no_plan_beats_the_upper_bound(problem: Problem) -> None:
    bound = exact.upper_bound(problem, integer=True)
    for name in ("multiset", "sa-dp", "exact"):
        report = check(problem, create_policy(name, SEARCHERS[name]).plan(problem))
        if report.effectiveness == 1.0:  # the bound speaks of plans that place all where one may exist
            assert report.accuracy <= bound * (1.0 + 1e-6) + 1e-9


@settings(relaxed, max_examples=100)
@given(problem=problems(), data=st.data())
def test_a_filled_device_holds_its_load_and_takes_no_client_twice(problem: Problem, data: st.DataObject) -> None:
    tables = compile_tables(problem)
    if not tables.rate:
        return
    packer = Packer(tables)
    lane = data.draw(st.integers(0, len(tables.lanes) - 1))
    load, left = packer.step(lane, tables.full)
    taken = [before - after for before, after in zip(tables.full, left, strict=True)]
    assert all(count >= 0 for count in taken)
    assert load == sum(count * rate for count, rate in zip(taken, tables.rate, strict=True))
    used = [tables.lanes[lane].max_batch[one] for one, count in enumerate(taken) if count]
    assert not used or load <= tables.lanes[lane].capacity[min(used)]
    assert math.fsum(count * true for count, true in zip(taken, tables.true_rate, strict=True)) <= load + 1e-9


@settings(relaxed, max_examples=200)
@given(problem=problems(), data=st.data())
def test_filling_is_given_up_only_where_it_would_not_reach_what_is_asked(problem: Problem, data: st.DataObject) -> None:
    tables = compile_tables(problem)
    if not tables.rate:
        return
    packer, penalty = Packer(tables), float(max(tables.rate))
    numbers = st.integers(0, 2 * len(tables.lanes) - 1)
    lanes = sorted(data.draw(st.lists(numbers, min_size=1, max_size=8)))
    wanted = bytes(data.draw(st.integers(0, count)) for count in tables.full)
    filled = packer.fill(lanes, wanted)
    worth = filled[0] - penalty * sum(filled[1])
    least = worth + data.draw(st.floats(-2.0, 2.0)) * penalty
    bounded = packer.fill_above(lanes, wanted, tables.load(wanted), least, penalty)
    assert bounded == filled or (bounded is None and worth < least)
