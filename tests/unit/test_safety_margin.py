"""What missed deadlines teach a client."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly.safety_margin import MOST, STEP, TOLERATED, observe
from moonjelly.types import Outcome

SLO_MS = 100.0


def after(*outcomes: Outcome, margin_ms: float = 0.0) -> float:
    for outcome in outcomes:
        margin_ms = observe(margin_ms, outcome, SLO_MS)
    return margin_ms


@pytest.mark.parametrize("missed", [Outcome.LATE, Outcome.DROPPED])
def test_a_missed_deadline_is_a_step_and_kept_ones_take_it_back(missed: Outcome) -> None:
    margin_ms = after(missed)
    assert margin_ms == pytest.approx((1.0 - TOLERATED) * STEP * SLO_MS)
    kept = round((1.0 - TOLERATED) / TOLERATED)
    assert after(*[Outcome.ON_TIME] * (kept - 1), margin_ms=margin_ms) > 0.0
    assert after(*[Outcome.ON_TIME] * kept, margin_ms=margin_ms) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.REJECTED, Outcome.LOST, Outcome.FAILED])
def test_what_says_nothing_of_time_changes_nothing(outcome: Outcome) -> None:
    assert after(outcome, margin_ms=7.0) == 7.0


@given(st.lists(st.sampled_from(Outcome), max_size=300))
def test_it_stays_within_its_bounds(outcomes: list[Outcome]) -> None:
    assert 0.0 <= after(*outcomes) <= MOST * SLO_MS


def test_the_share_of_missed_deadlines_settles_at_what_is_tolerated() -> None:
    """Frames need up to 20 ms more than was estimated; the margin finds the 99.5th percentile of it."""
    rng = np.random.default_rng(1)
    margin_ms, missed, frames = 0.0, 0, 20_000
    for beyond_ms in rng.uniform(0.0, 20.0, frames):
        late = bool(beyond_ms > margin_ms)
        missed += late
        margin_ms = observe(margin_ms, Outcome.LATE if late else Outcome.ON_TIME, SLO_MS)
    assert missed / frames == pytest.approx(TOLERATED, abs=0.001)
