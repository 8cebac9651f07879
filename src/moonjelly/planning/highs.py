"""HiGHS on the aggregated model. ``highspy`` is imported when it is first needed."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import SolverError
from moonjelly.planning.aggregated import AggregatedModel


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a solver found.

    Attributes:
        status: ``optimal``, ``limit`` (time ran out) or ``infeasible``.
        solution: ``(C,)``, or ``None`` when it has none.
        objective: of the solution; ``-inf`` without one.
        bound: proven upper bound of the objective.
    """

    status: str
    solution: NDArray[np.float64] | None
    objective: float
    bound: float


def available() -> bool:
    """Whether ``highspy`` is installed."""
    return importlib.util.find_spec("highspy") is not None


def solve(model: AggregatedModel, *, integer: bool, time_limit_s: float = math.inf) -> Outcome:
    """Maximise with one thread.

    Args:
        model: what to solve.
        integer: keep the variables whole; otherwise solve the linear relaxation.
        time_limit_s: of HiGHS's own clock.

    Raises:
        SolverError: ``highspy`` is missing, or HiGHS gave up.
    """
    try:
        import highspy
    except ImportError:
        raise SolverError("HiGHS is not installed; pip install highspy") from None
    solver: Any = cast(Any, highspy).Highs()
    for name, value in (("output_flag", False), ("threads", 1), ("parallel", "off"), ("mip_rel_gap", 0.0)):
        solver.setOptionValue(name, value)
    if math.isfinite(time_limit_s):
        solver.setOptionValue("time_limit", float(time_limit_s))
    solver.passModel(_lp(highspy, model, integer))
    solver.run()
    return _outcome(highspy, solver, integer)


def _lp(highspy: Any, model: AggregatedModel, integer: bool) -> Any:
    columns, rows = model.shape
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, rows
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = model.objective
    lp.col_lower_ = np.zeros(columns)
    lp.col_upper_ = model.upper
    lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = model.starts
    lp.a_matrix_.index_ = model.columns
    lp.a_matrix_.value_ = model.values
    if integer:
        lp.integrality_ = [highspy.HighsVarType.kInteger] * columns
    return lp


def _outcome(highspy: Any, solver: Any, integer: bool) -> Outcome:
    status = solver.getModelStatus()
    kinds = highspy.HighsModelStatus
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Outcome("infeasible", None, -math.inf, -math.inf)
    if status not in (kinds.kOptimal, kinds.kTimeLimit):
        raise SolverError(f"HiGHS stopped with status '{solver.modelStatusToString(status)}'; try the other solver")
    info = solver.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    solution = np.array(solver.getSolution().col_value) if found else None
    objective = float(info.objective_function_value) if found else -math.inf
    if status == kinds.kOptimal:
        return Outcome("optimal", solution, objective, float(info.mip_dual_bound) if integer else objective)
    return Outcome("limit", solution, objective, float(info.mip_dual_bound) if integer else math.inf)
