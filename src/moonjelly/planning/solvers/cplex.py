"""CPLEX through docplex. Its free community edition takes at most 1,000 variables and 1,000 rows."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np

from moonjelly.errors import SolverError
from moonjelly.planning.program import Outcome, Program

COMMUNITY_LIMIT = 1000


def available() -> bool:
    """Whether docplex and CPLEX are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("docplex", "cplex"))


def require() -> None:
    """Say how to get CPLEX.

    Raises:
        SolverError: it is not installed.
    """
    if not available():
        raise SolverError("CPLEX is not installed; pip install docplex cplex, or choose solver 'highs'")


def solve(program: Program, *, integer: bool, time_limit_s: float = math.inf) -> Outcome:
    """Maximise with one thread.

    Args:
        program: what to solve.
        integer: keep the variables whole; otherwise solve the linear relaxation.
        time_limit_s: of CPLEX's own clock.

    Raises:
        SolverError: CPLEX is missing, refuses the size, or gave up.
    """
    require()
    from docplex.mp.model import Model
    from docplex.mp.utils import DOcplexException, DOcplexLimitsExceeded

    with Model(name="plan") as model:
        variables = _build(model, program, integer)
        if math.isfinite(time_limit_s):
            model.parameters.timelimit = max(time_limit_s, 0.01)  # docplex's own setter takes a second at least
        try:
            found = model.solve()
        except DOcplexLimitsExceeded:
            raise SolverError(_too_large(program)) from None
        except DOcplexException as fault:
            raise SolverError(f"CPLEX gave up: {fault}; try solver 'highs'") from fault
        return _outcome(model, variables, found, integer)


def _too_large(program: Program) -> str:
    columns, rows = program.shape
    return (
        f"CPLEX's community edition takes {COMMUNITY_LIMIT} variables and {COMMUNITY_LIMIT} rows, this problem has "
        f"{columns} and {rows}; install the full edition or choose solver 'highs'"
    )


def _build(model: Any, program: Program, integer: bool) -> list[Any]:
    columns, rows = program.shape
    make = model.integer_var_list if integer else model.continuous_var_list
    variables: list[Any] = make(columns, lb=0, ub=program.upper.tolist())
    model.context.cplex_parameters.threads = 1
    if integer:
        model.parameters.mip.tolerances.mipgap = 0.0
    model.maximize(model.scal_prod(variables, program.objective.tolist()))
    constraints = []
    for row in range(rows):
        entries = slice(program.starts[row], program.starts[row + 1])
        chosen = [variables[column] for column in program.columns[entries]]
        left = model.scal_prod(chosen, program.values[entries].tolist())
        upper = float(program.row_upper[row])
        constraints.append(left == upper if program.row_lower[row] == upper else left <= upper)
    model.add_constraints(constraints)
    return variables


def _outcome(model: Any, variables: list[Any], found: Any, integer: bool) -> Outcome:
    details = model.solve_details
    status = str(details.status).lower()
    if "infeasible" in status:
        return Outcome("infeasible", None, -math.inf, -math.inf)
    solution = np.array(found.get_values(variables), np.float64) if found is not None else None
    objective = float(found.objective_value) if found is not None else -math.inf
    optimal = "optimal" in status
    bound = float(details.best_bound) if integer and not math.isnan(details.best_bound) else math.inf
    if optimal and not integer:
        bound = objective
    return Outcome("optimal" if optimal else "limit", solution, objective, bound)
