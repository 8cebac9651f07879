"""A time budget as a question that a search asks now and then."""

from __future__ import annotations

import math
from collections.abc import Callable

from moonjelly.clock import Clock
from moonjelly.units import ms_to_ns


def deadline(time_budget_ms: float, clock: Clock | None) -> Callable[[], bool]:
    """Whether ``time_budget_ms`` from now are over; never without a clock or a finite budget."""
    if clock is None or not math.isfinite(time_budget_ms):
        return lambda: False
    end_ns = clock.now_ns() + ms_to_ns(time_budget_ms)
    return lambda: clock.now_ns() >= end_ns
