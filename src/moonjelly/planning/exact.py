"""The aggregated model solved to optimality, and upper bounds of every plan's accuracy.

The model leaves out the bin packing among devices of one lane. Its solution is therefore packed afterwards: by the
subset sums of :mod:`moonjelly.planning.packing`, and where these lose something, by a second, small program that maps
clients to the devices as chosen. When the plan reaches the bound it is optimal. Otherwise, with up to 8 devices,
:mod:`moonjelly.planning.decomposition` proves that no plan is better or finds it; what gap remains is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError, SolverError
from moonjelly.planning import aggregated
from moonjelly.planning.aggregated import AggregatedModel
from moonjelly.planning.assemble import assemble, assemble_filled
from moonjelly.planning.check import check, serves_alone
from moonjelly.planning.deadline import deadline
from moonjelly.planning.decomposition import Proof, prove
from moonjelly.planning.packing import Packer
from moonjelly.planning.problem import Plan, Problem
from moonjelly.planning.program import Outcome, Program, Rows
from moonjelly.planning.solvers import cplex, highs
from moonjelly.planning.tables import Tables, compile_tables

SOLVERS = ("auto", "cplex", "highs")
_PROVEN = 1e-6  # relative distance to the bound below which a plan counts as optimal


@dataclass(frozen=True, eq=False, slots=True)
class Solution:
    """A plan and how good it is proven to be.

    Attributes:
        plan: passes the checker.
        accuracy: request-weighted, of the plan.
        bound: proven upper bound of the accuracy of every plan that places as many clients.
        solver: ``cplex`` or ``highs``.
        status: ``optimal`` or ``limit``, of the aggregated model.
        shape: variables and rows of the aggregated model.
    """

    plan: Plan
    accuracy: float
    bound: float
    solver: str
    status: str
    shape: tuple[int, int]

    @property
    def gap(self) -> float:
        """``bound / accuracy - 1``; 0 when both are 0."""
        return self.bound / self.accuracy - 1.0 if self.accuracy > 0.0 else (0.0 if self.bound <= 0.0 else math.inf)

    @property
    def proven(self) -> bool:
        """The plan is optimal."""
        return self.gap <= _PROVEN


@dataclass(frozen=True)
class Exact:
    """The optimum by mixed-integer programming; see the module's text.

    Attributes:
        solver: ``cplex``, ``highs``, or ``auto``: CPLEX where it is installed and takes the size, else HiGHS.
        time_limit_s: of each of the two programs, on the solver's own clock; a time budget shortens it and leaves out
            the proof.

    Raises:
        ConfigError: an option out of its range.
    """

    solver: str = "auto"
    time_limit_s: float = 60.0

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ConfigError(
                f"policy 'exact', option 'solver' = '{self.solver}'; it must be one of {', '.join(SOLVERS)}"
            )
        if not self.time_limit_s > 0.0:
            raise ConfigError(f"policy 'exact', option 'time_limit_s' = {self.time_limit_s}: it must be positive")

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Solve; nothing is drawn.

        Raises:
            SolverError: the solver is missing or refuses the problem's size.
        """
        if clock is None or math.isinf(time_budget_ms):
            return solve(problem, solver=self.solver, time_limit_s=self.time_limit_s, clock=clock).plan
        limit_s = min(self.time_limit_s, time_budget_ms / 1000.0)
        return _solve_aggregated(problem, self.solver, limit_s)[0].plan


def solve(
    problem: Problem, *, solver: str = "auto", time_limit_s: float = 60.0, clock: Clock | None = None
) -> Solution:
    """Place as many clients as possible, and among such plans find the most accurate one.

    Args:
        problem: what to plan.
        solver: one of :data:`SOLVERS`.
        time_limit_s: of each program, and by ``clock`` of the proof that closes a gap.
        clock: without one the proof ends with the first program that takes longer.

    Raises:
        SolverError: the solver is missing or refuses the problem's size.
    """
    found, may_place_all = _solve_aggregated(problem, solver, time_limit_s)
    if found.proven or not may_place_all:
        return found
    places_all = check(problem, found.plan).effectiveness >= 1.0
    least = found.accuracy * (1.0 + _PROVEN / 2.0) if places_all else 0.0
    tables, proof = _prove(problem, least, solver, time_limit_s, clock)
    if proof.lanes:
        plan = assemble_filled(tables, proof.lanes, proof.placed)
        report = check(problem, plan)
        if report.valid and report.effectiveness >= 1.0 and (report.accuracy > found.accuracy or not places_all):
            found, places_all = replace(found, plan=plan, accuracy=report.accuracy), True
    if not places_all:
        return found  # what is proven of plans that place all says nothing of this one
    return replace(found, bound=min(found.bound, max(found.accuracy, _accuracy(problem, tables, proof.bound))))


def _solve_aggregated(problem: Problem, solver: str, time_limit_s: float) -> tuple[Solution, bool]:
    """The aggregated model's solution, packed, and whether all clients can be placed for all that the model knows."""
    tables = compile_tables(problem)
    packer = Packer(tables)
    if not tables.rate:
        return Solution(assemble(packer, ()), 0.0, _left_out(problem, tables), "highs", "optimal", (0, 0)), True
    model = aggregated.build(tables, place_all=True, tighten=True)
    name, outcome = _run(model.program, solver, time_limit_s)
    may_place_all = outcome.status != "infeasible"
    if not may_place_all:
        # Overload: a placed client outweighs any accuracy. The bound then has no such bonus in it.
        weighted = aggregated.build(tables, place_all=False, tighten=True, bonus=float(tables.load(tables.full)))
        name, outcome = _run(weighted.program, solver, time_limit_s)
        bound = upper_bound(problem)
    else:
        bound = _accuracy(problem, tables, outcome.bound)
    if outcome.solution is None:
        raise SolverError(f"{name} found no plan within {time_limit_s:g} s; give it more time or use policy 'multiset'")
    plan = _pack(problem, packer, model, outcome, lambda program: _run(program, name, time_limit_s)[1])
    found = Solution(plan, check(problem, plan).accuracy, bound, name, outcome.status, model.program.shape)
    return found, may_place_all


def require_solver(solver: str) -> None:
    """Say before any work that a solver cannot be used.

    Raises:
        ConfigError: there is none of that name.
        SolverError: it is not installed.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"unknown solver '{solver}'; known: {', '.join(SOLVERS)}")
    if solver == "cplex":
        cplex.require()


def upper_bound(problem: Problem, *, integer: bool = False, solver: str = "highs", time_limit_s: float = 60.0) -> float:
    """An upper bound of the request-weighted accuracy of every plan; of those that place all where one may exist.

    Args:
        problem: what to bound.
        integer: prove a bound of the aggregated model itself within ``time_limit_s``; otherwise of its linear
            relaxation, which takes milliseconds and is 0.01 to 0.3 % above.
        solver: one of :data:`SOLVERS`.
        time_limit_s: of each program.

    Raises:
        SolverError: the solver is missing or refuses the problem's size.
    """
    tables = compile_tables(problem)
    if not tables.rate:
        return _left_out(problem, tables)
    best = math.inf
    for whole in (False, True) if integer else (False,):
        for place_all in (True, False):
            program = aggregated.build(tables, place_all=place_all, tighten=True).program
            _, outcome = _run(program, solver, time_limit_s, integer=whole)
            if outcome.status != "infeasible":
                best = min(best, outcome.bound)
                break
    return _accuracy(problem, tables, best)


def tightened_bound(
    problem: Problem, least: float, *, solver: str = "auto", time_limit_s: float = 60.0, clock: Clock | None = None
) -> float:
    """An upper bound of the accuracy of every plan that serves every client that can be served at all.

    Args:
        problem: what to bound.
        least: the bound is lowered until it is at most this or that of the best plan, or the time is up.
        solver: one of :data:`SOLVERS`.
        time_limit_s: see :func:`solve`.
        clock: see :func:`solve`.

    Returns:
        The bound; ``inf`` with too many devices and variants, with rates that have no common unit, or without HiGHS.
    """
    tables, proof = _prove(problem, least, solver, time_limit_s, clock)
    return _accuracy(problem, tables, proof.bound)


def _prove(
    problem: Problem, least: float, solver: str, time_limit_s: float, clock: Clock | None
) -> tuple[Tables, Proof]:
    tables = compile_tables(problem)
    if not tables.rate or not highs.available():
        return tables, Proof(math.inf if tables.rate else 0.0)

    def run(program: Program, integer: bool) -> Outcome:
        # CPLEX may refuse the size of a program that it has not been asked for; only HiGHS is asked for duals.
        return _run(program, "auto" if integer and solver != "highs" else "highs", time_limit_s, integer=integer)[1]

    # Accuracy is an affine function of a program's objective.
    none, one = _accuracy(problem, tables, 0.0), _accuracy(problem, tables, 1.0)
    return tables, prove(tables, (least - none) / (one - none), run, deadline(1000.0 * time_limit_s, clock))


def _run(program: Program, solver: str, time_limit_s: float, *, integer: bool = True) -> tuple[str, Outcome]:
    require_solver(solver)
    if solver == "auto" and cplex.available():
        try:
            return "cplex", cplex.solve(program, integer=integer, time_limit_s=time_limit_s)
        except SolverError:
            if not highs.available():
                raise
    if solver == "cplex":
        return "cplex", cplex.solve(program, integer=integer, time_limit_s=time_limit_s)
    return "highs", highs.solve(program, integer=integer, time_limit_s=time_limit_s)


def _accuracy(problem: Problem, tables: Tables, objective: float) -> float:
    offered = math.fsum(client.fps for client in problem.clients)
    return objective * tables.unit / offered + _left_out(problem, tables)


def _left_out(problem: Problem, tables: Tables) -> float:
    """What clients could add that fit a device in truth but not in whole units: they are in no type."""
    typed = {position for members in tables.members for position in members}
    offered = math.fsum(client.fps for client in problem.clients)
    best = max((max(profile.accuracy) for profile in problem.profiles.values()), default=0.0)
    return sum(
        best * client.fps / offered
        for position, client in enumerate(problem.clients)
        if position not in typed and serves_alone(problem, client)
    )


def _pack(
    problem: Problem, packer: Packer, model: AggregatedModel, outcome: Outcome, run: Callable[[Program], Outcome]
) -> Plan:
    """The plan of a solution's devices: by subset sums, or by a program where these do not reach the objective."""
    assert outcome.solution is not None
    counts = np.rint(outcome.solution[len(model.x_type) :]).astype(int).tolist()
    devices = sorted(
        (lane, batch)
        for lane, batch, count in zip(model.y_lane.tolist(), model.y_batch.tolist(), counts, strict=True)
        for _ in range(count)
    )
    plan = assemble(packer, [lane for lane, _ in devices])
    report = check(problem, plan)
    if report.accuracy >= _accuracy(problem, packer.tables, outcome.objective) * (1.0 - _PROVEN) or not devices:
        return plan
    mapped = run(_mapping_program(packer.tables, devices))
    if mapped.solution is None:
        return plan
    placed = np.rint(mapped.solution).astype(int).reshape(len(packer.tables.rate), len(devices)).T
    other = assemble_filled(packer.tables, [lane for lane, _ in devices], placed.tolist())
    rated = check(problem, other)
    better = (rated.effectiveness, rated.accuracy) > (report.effectiveness, report.accuracy)
    return other if better and rated.valid else plan


def _mapping_program(tables: Tables, devices: list[tuple[int, int]]) -> Program:
    """Map clients to devices whose lanes and batches are fixed; column ``t * len(devices) + d``."""
    rows = Rows()
    kinds, count = len(tables.rate), np.array([len(one) for one in tables.members], np.int64)
    rate = np.array(tables.rate, np.float64)
    rows.add_totals(np.repeat(np.arange(kinds), len(devices)), 0, count, exactly=False)
    allowed = np.zeros((kinds, len(devices)))
    accuracy = np.zeros(len(devices))
    for column, (index, batch) in enumerate(devices):
        lane = tables.lanes[index]
        accuracy[column] = lane.accuracy
        allowed[:, column] = np.array(lane.max_batch) >= batch
        rows.add_one(np.arange(kinds) * len(devices) + column, rate, float(lane.capacity[batch]))
    bonus = float(tables.load(tables.full))
    objective = (rate[:, None] * accuracy[None, :] + bonus) * allowed
    return rows.program(objective.ravel(), (allowed * count[:, None]).ravel())
