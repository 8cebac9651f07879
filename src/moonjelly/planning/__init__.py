"""From a problem (clients, devices, profiles) to a plan, by one of several policies (``docs/planning.md``)."""

from moonjelly.planning.assemble import Draft, finish
from moonjelly.planning.check import PlanReport, check
from moonjelly.planning.keep import keep_previous
from moonjelly.planning.problem import Assignment, Client, Device, Plan, Problem
from moonjelly.planning.registry import (
    DEFAULT_POLICY,
    ENTRY_POINT_GROUP,
    Policy,
    create_policy,
    keeps_factor,
    policy_names,
)

__all__ = [
    "DEFAULT_POLICY",
    "ENTRY_POINT_GROUP",
    "Assignment",
    "Client",
    "Device",
    "Draft",
    "Plan",
    "PlanReport",
    "Policy",
    "Problem",
    "check",
    "create_policy",
    "finish",
    "keep_previous",
    "keeps_factor",
    "policy_names",
]
