"""The checker finds each broken constraint on its own, and measures by hand-computable rules."""

from __future__ import annotations

import math

import pytest

from moonjelly.errors import ProblemError
from moonjelly.planning import Assignment, Device, Draft, Plan, check, finish
from tests.support.planning import client, problem


def plan(*assignments: Assignment, **rejected: str) -> Plan:
    return Plan(assignments, {int(key.removeprefix("c")): reason for key, reason in rejected.items()})


def on(device_id: int, variant: int, batch: int, *clients: int, group: str = "default") -> Assignment:
    return Assignment(device_id, group, variant, batch, clients)


TWO = [client(1, 10.0), client(2, 29.97, (90.0, 17.0, 0.0))]


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (plan(on(0, 0, 1, 1, 2)), r"assignments are for devices \[0\], the problem has \[0, 1\]"),
        (plan(on(1, 0, 1, 1, 2), on(0, 0, 1)), r"assignments are for devices \[1, 0\]"),
        (plan(on(0, 0, 1, 1), on(1, 0, 1)), "client 2 is neither mapped nor rejected"),
        (plan(on(0, 0, 1, 1, 2), on(1, 0, 1, 2)), "client 2 is mapped twice"),
        (plan(on(0, 0, 1, 1, 2, 3), on(1, 0, 1)), "client 3 is mapped but not in the problem"),
        (plan(on(0, 0, 1, 1), on(1, 0, 1), c2="full", c9="full"), "client 9 is rejected but not in the problem"),
        (plan(on(0, 0, 1, 1, 2), on(1, 0, 1), c2="full"), "client 2 is both mapped and rejected"),
        (plan(on(0, 0, 1, 1), on(1, 0, 1), c2=""), "client 2 is rejected without a reason"),
        (plan(on(0, 3, 1, 1, 2), on(1, 0, 1)), "device 0 runs variant 3, the profile has 3"),
        (plan(on(0, 0, 3, 1, 2), on(1, 0, 1)), r"device 0 runs batch 3, the profile has 1\.\.2"),
        (plan(on(0, 0, 1, 1, 2), on(1, 0, 1, group="night")), "device 1 runs group 'night', which has no profile"),
        (plan(on(0, 1, 2, 1, 2), on(1, 0, 1)), "client 2 has 17 ms for variant 1; device 0 needs 20 ms at batch 2"),
    ],
)
def test_every_broken_constraint_is_named(faulty: Plan, words: str) -> None:
    report = check(problem(TWO), faulty)
    assert not report.valid
    with pytest.raises(ProblemError, match=words):
        report.require_valid()


def test_the_load_must_stay_below_the_planned_share_of_the_throughput() -> None:
    served = plan(on(0, 0, 1, 1))  # 1000 / 4 = 250 frames/s
    assert check(problem([client(1, 249.9)], 1), served).valid
    assert not check(problem([client(1, 250.0)], 1), served).valid
    assert "must be below 225" in check(problem([client(1, 225.0)], 1, rho=0.9), served).violations[0]


def test_half_the_speed_doubles_the_time() -> None:
    slow = problem([client(1, 10.0, (17.0,) * 3)], [Device(0, "gpu", 0.5)])
    assert check(slow, plan(on(0, 0, 1, 1))).slack_ms == {1: 1.0}  # 17 - 2 * 4 / 0.5
    assert not check(slow, plan(on(0, 0, 2, 1))).valid


def test_what_a_plan_is_worth() -> None:
    previous = plan(on(0, 1, 1), on(1, 0, 1))
    one = problem([*TWO, client(3, 10.0)], previous=previous)
    report = check(one, plan(on(0, 2, 1, 1), on(1, 0, 1, 2), c3="full"))
    assert report.valid
    assert report.effectiveness == 2 / 3
    assert report.accuracy == pytest.approx((10.0 * 0.4 + 29.97 * 0.2) / 49.97)
    assert report.utilisation == pytest.approx({0: 10.0 * 16 / 1000, 1: 29.97 * 4 / 1000})
    assert report.slack_ms == {1: 90.0 - 32.0, 2: 90.0 - 8.0}
    assert report.min_slack_ms == 58.0
    assert report.changes == 1


def test_a_client_that_no_device_could_ever_serve_does_not_count_against_effectiveness() -> None:
    one = problem([client(1), client(2, budget_ms=(7.0, 0.0, 0.0))])
    report = check(one, plan(on(0, 0, 1, 1), on(1, 0, 1), c2="too slow"))
    assert report.effectiveness == 1.0
    assert report.accuracy == 0.1  # but against accuracy it does


def test_a_plan_for_nobody() -> None:
    report = check(problem([]), plan(on(0, 0, 1), on(1, 0, 1)))
    assert report.valid
    assert (report.effectiveness, report.accuracy, report.min_slack_ms) == (1.0, 0.0, math.inf)


def test_a_policy_that_gives_a_device_too_much_is_told_what() -> None:
    impatient = client(7, budget_ms=(1.0, 1.0, 1.0))
    draft = Draft(Device(3, "gpu"), "default", 2, [impatient])
    with pytest.raises(ProblemError, match=r"device 3 cannot serve clients \(7,\) together with variant 2 of group"):
        finish(problem([impatient], [draft.device]), [draft])
