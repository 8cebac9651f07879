"""What is not a problem is refused when it is made; what cannot be served is a problem all the same."""

from __future__ import annotations

import math

import pytest

from moonjelly.errors import ProblemError, ProfileError
from moonjelly.planning import Client, Device, Problem, check, create_policy, policy_names
from moonjelly.profiles import Profile
from moonjelly.types import Variant
from tests.support.planning import client, problem, profile


@pytest.mark.parametrize("fps", [0.0, -5.0, math.nan, math.inf])
def test_a_rate_must_be_positive_and_finite(fps: float) -> None:
    with pytest.raises(ProblemError, match=r"client 7: fps is .*; it must be positive and finite"):
        Client(7, fps, 100.0, (1.0,))


@pytest.mark.parametrize("slo_ms", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_must_be_positive_and_finite(slo_ms: float) -> None:
    with pytest.raises(ProblemError, match=r"client 7: slo_ms is .*; it must be positive and finite"):
        Client(7, 10.0, slo_ms, (1.0,))


@pytest.mark.parametrize("budget", [-0.5, math.nan, math.inf])
def test_a_budget_must_be_finite_and_not_negative(budget: float) -> None:
    with pytest.raises(ProblemError, match=r"client 7: budget_ms\[1\] is .*must be finite and not negative"):
        Client(7, 10.0, 100.0, (1.0, budget, 2.0))


def test_budgets_so_large_that_their_sum_overflows_are_allowed() -> None:
    assert Client(7, 10.0, 100.0, (1.5e308, 1.5e308)).budget_ms == (1.5e308, 1.5e308)


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan, math.inf])
def test_a_speed_must_be_positive_and_finite(speed: float) -> None:
    with pytest.raises(ProblemError, match=r"device 3: speed is .*leave a device out that does not serve"):
        Device(3, "gpu", speed)


def test_names_must_not_be_empty() -> None:
    with pytest.raises(ProblemError, match="device 3: its kind is empty"):
        Device(3, "")
    with pytest.raises(ProblemError, match="client 7: its group is empty"):
        Client(7, 10.0, 100.0, (1.0,), "")


def test_ids_must_be_unique() -> None:
    with pytest.raises(ProblemError, match="client id 4 occurs twice"):
        problem([client(4), client(5), client(4)])
    with pytest.raises(ProblemError, match="device id 1 occurs twice"):
        problem([], [Device(1, "gpu"), Device(1, "gpu")])


def test_a_device_kind_needs_a_profile() -> None:
    with pytest.raises(ProblemError, match="device 0: there is no profile of kind 'tpu'; profiled kinds: gpu"):
        problem([], [Device(0, "tpu")])


def test_a_client_needs_a_budget_per_variant() -> None:
    with pytest.raises(ProblemError, match="client 1: 2 budgets for the 3 variants of group 'default'"):
        problem([client(1, budget_ms=(1.0, 2.0))])


def test_profiles_of_a_group_list_the_same_variants() -> None:
    other = Profile("cpu", (Variant("else", "m", 32),), (0.5,), ((3.0, 4.0),))
    with pytest.raises(ProblemError, match="group 'default': the profiles of 'gpu' and 'cpu' list different variants"):
        Problem((), (), {("gpu", "default"): profile(), ("cpu", "default"): other})


@pytest.mark.parametrize(("factor", "rho"), [(0.0, 1.0), (math.nan, 1.0), (2.0, 0.0), (2.0, 1.5), (2.0, math.nan)])
def test_constants_must_be_possible(factor: float, rho: float) -> None:
    with pytest.raises(ProblemError, match=r"latency_factor is|rho is"):
        Problem((), (), {}, latency_factor=factor, rho=rho)


@pytest.mark.parametrize("changes", [-1.0, math.nan, math.inf])
def test_changes_of_late_must_be_possible(changes: float) -> None:
    with pytest.raises(ProblemError, match="changes_per_min is"):
        Problem((), (), {}, changes_per_min=changes)


def test_a_profile_with_holes_or_falling_rows_is_refused() -> None:
    with pytest.raises(ProfileError, match="profile every variant at the same batch sizes"):
        profile(((4.0, 5.0), (8.0,), (16.0, 20.0)))
    with pytest.raises(ProfileError, match=r"latency of 'v1' falls from 8.0 to 7.0 ms at batch 2"):
        profile(((4.0, 5.0), (8.0, 7.0), (16.0, 20.0)))
    with pytest.raises(ProfileError, match="latency of 'v1' at batch 2 is nan ms"):
        profile(((4.0, 5.0), (8.0, math.nan), (16.0, 20.0)))


@pytest.mark.parametrize("name", sorted(set(policy_names()) - {"exact"}))
def test_whoever_cannot_be_served_is_rejected_by_name(name: str) -> None:
    dead_link, hopeless, heavy = client(1, budget_ms=(0.0,) * 3), client(2, budget_ms=(5.0,) * 3), client(3, fps=900.0)
    stranger = Client(4, 10.0, 100.0, (50.0,), "night")
    one = problem([dead_link, hopeless, heavy, stranger])
    plan = create_policy(name).plan(one)
    assert check(one, plan).violations == ()
    assert plan.rejected == {
        1: "its link carries no variant at 10 frames/s within 100 ms",
        2: "no device is fast enough for it: at most 5.0 ms of its 100 ms are left for the server at 10 frames/s",
        3: "no device is fast enough for it: at most 90.0 ms of its 100 ms are left for the server at 900 frames/s",
        4: "no device has a profile for its group 'night'",
    }
    assert check(one, plan).effectiveness == 1.0


@pytest.mark.parametrize("name", sorted(set(policy_names()) - {"exact"}))
def test_nobody_to_serve_and_nobody_to_serve_with(name: str) -> None:
    policy = create_policy(name)
    empty = problem([], 2)
    assert [one.device_id for one in policy.plan(empty).assignments] == [0, 1]
    assert check(empty, policy.plan(empty)).valid
    without_devices = problem([client(1)], 0)
    assert policy.plan(without_devices).rejected == {1: "there is no device"}
    assert check(without_devices, policy.plan(without_devices)).valid


def test_more_clients_than_the_devices_can_serve() -> None:
    one = problem([client(index, fps=100.0, budget_ms=(20.0, 20.0, 0.0)) for index in range(20)], 2)
    plan = create_policy("multiset").plan(one)
    report = check(one, plan)
    assert report.valid
    assert report.effectiveness == 6 / 20  # 400 frames/s at the cheapest variant and batch 2: three of 100 on each
    assert set(plan.rejected.values()) == {"the devices are full"}
