"""When to plan, and what to do when the planner is late."""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.planning.cadence import asked_run_ns, periodic_run_ns
from moonjelly.planning.problem import Problem

PLANNER_PATIENCE_NS = 5_000_000_000
"""A planner that has not answered for this long is replaced."""


@dataclass(slots=True)
class PlanClock:
    """At most one planning run at a time, as often as :mod:`moonjelly.planning.cadence` allows; one for all that asks
    meanwhile.

    Attributes:
        interval_ns: between periodic runs.
        budget_ns: after which the fallback is used.
        run: number of the latest run.
        pending: the problem that the planner works on.
        fallen_back: the fallback is in force for the pending run already.
    """

    interval_ns: int
    budget_ns: int
    run: int = 0
    started_ns: int = 0
    last_ns: int | None = None
    pending: Problem | None = None
    trigger: str = ""
    wanted: str = ""
    fallen_back: bool = False

    def want(self, trigger: str) -> None:
        """Plan as soon as possible; the first of several reasons is remembered."""
        self.wanted = self.wanted or trigger

    def may_start(self, now_ns: int) -> bool:
        """Whether a wanted run can begin."""
        if not self.wanted or self.pending is not None:
            return False
        return asked_run_ns(self.last_ns, now_ns, self.interval_ns) <= now_ns

    def start(self, problem: Problem, now_ns: int) -> int:
        """Begin a run; its number."""
        self.run += 1
        self.trigger, self.wanted = self.wanted, ""
        self.pending, self.started_ns, self.last_ns = problem, now_ns, now_ns
        self.fallen_back = False
        return self.run

    def finish(self, run: int) -> Problem | None:
        """The problem that ``run`` answers; ``None`` when it is not the pending run."""
        if run != self.run:
            return None
        problem, self.pending = self.pending, None
        return problem

    def due(self, now_ns: int) -> bool:
        """Whether the periodic run is due."""
        return self.last_ns is None or now_ns >= periodic_run_ns(self.last_ns, self.interval_ns)

    def next_ns(self, periodic: bool) -> int | None:
        """When something of this is next due."""
        if self.pending is None:
            if self.last_ns is None:
                return None
            if self.wanted:
                return asked_run_ns(self.last_ns, self.last_ns, self.interval_ns)
            return periodic_run_ns(self.last_ns, self.interval_ns) if periodic else None
        return self.started_ns + (PLANNER_PATIENCE_NS if self.fallen_back else self.budget_ns)
