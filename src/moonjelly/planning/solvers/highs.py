"""HiGHS. ``highspy`` is imported when it is first needed."""

from __future__ import annotations

import importlib.util
import math
from typing import Any, cast

import numpy as np

from moonjelly.errors import SolverError
from moonjelly.planning.program import Outcome, Program


def available() -> bool:
    """Whether ``highspy`` is installed."""
    return importlib.util.find_spec("highspy") is not None


def solve(program: Program, *, integer: bool, time_limit_s: float = math.inf) -> Outcome:
    """Maximise with one thread.

    Args:
        program: what to solve.
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
    if not integer:
        solver.setOptionValue("presolve", "off")  # takes longer than it saves at these sizes
    if math.isfinite(time_limit_s):
        solver.setOptionValue("time_limit", float(time_limit_s))
    solver.passModel(_lp(highspy, program, integer))
    solver.run()
    return _outcome(highspy, solver, integer)


def _lp(highspy: Any, program: Program, integer: bool) -> Any:
    columns, rows = program.shape
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = columns, rows
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = program.objective
    lp.col_lower_ = np.zeros(columns)
    lp.col_upper_ = program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = program.starts
    lp.a_matrix_.index_ = program.columns
    lp.a_matrix_.value_ = program.values
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
    if status == kinds.kOptimal and integer:
        return Outcome("optimal", solution, objective, float(info.mip_dual_bound))
    if status == kinds.kOptimal:
        return Outcome("optimal", solution, objective, objective, np.array(solver.getSolution().row_dual))
    return Outcome("limit", solution, objective, float(info.mip_dual_bound) if integer else math.inf)
