"""Planning policies by name: the built-in ones, and any that an installed package adds.

A policy is a frozen dataclass whose fields are its options and which has a ``plan`` method. A package adds one by
naming the class in its entry points (``examples/policy_plugin``)::

    [project.entry-points."moonjelly.policies"]
    first-fit = "policy_plugin:FirstFit"
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

from moonjelly.clock import Clock
from moonjelly.errors import ConfigError
from moonjelly.planning.problem import Plan, Problem

ENTRY_POINT_GROUP = "moonjelly.policies"
DEFAULT_POLICY = "multiset"

# "module:class", so that a policy costs an import only when it is used.
_BUILT_IN: Mapping[str, str] = {
    "multiset": "moonjelly.planning.multiset:Multiset",
    "sa-dp": "moonjelly.planning.sa_dp:SaDp",
    "exact": "moonjelly.planning.exact:Exact",
    "best-uniform": "moonjelly.planning.uniform:BestUniform",
    "fixed": "moonjelly.planning.uniform:Fixed",
    "model-switching": "moonjelly.planning.uniform:ModelSwitching",
    "max-accuracy": "moonjelly.planning.baselines:MaxAccuracy",
    "aws-client": "moonjelly.planning.baselines:AwsClient",
    "fixed-slo-share": "moonjelly.planning.baselines:FixedSloShare",
    "proteus": "moonjelly.planning.proteus:Proteus",
    "keep-previous": "moonjelly.planning.keep:KeepPrevious",
}

BASELINES = frozenset(_BUILT_IN) - {"multiset", "exact", "keep-previous"}
"""Policies that stand for published systems or for simple ways: they plan with two batches per frame, as published."""


@runtime_checkable
class Policy(Protocol):
    """Turns a problem into a plan that passes :func:`moonjelly.planning.check.check`."""

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Plan.

        Args:
            problem: well formed by construction.
            seed: of whatever the policy draws; the same seed gives the same plan unless the budget cuts it short.
            time_budget_ms: when to stop improving, counted from the call; needs ``clock``.
            clock: the only source of time; without one the policy runs to its end.
        """
        ...


def policy_names() -> tuple[str, ...]:
    """Names of all policies, the built-in ones first."""
    return (*_BUILT_IN, *sorted(set(_plugins()) - set(_BUILT_IN)))


def keeps_factor(name: str) -> bool:
    """Whether a policy always plans with two batches per frame unless told otherwise; ``name`` may have options."""
    return name.partition(":")[0] in BASELINES


def create_policy(name: str, options: Mapping[str, Any] | None = None) -> Policy:
    """Make a policy.

    Args:
        name: one of :func:`policy_names`, with options as text if need be: ``fixed:variant=3`` or
            ``multiset:churn=0.002,evaluations=500``.
        options: further values for the policy's fields; text is converted to the field's type.

    Raises:
        ConfigError: an unknown policy or option, an impossible value, a plug-in that cannot be loaded.
    """
    name, _, written = name.partition(":")
    factory = _find(name)
    policy = factory(**_converted(name, factory, {**_options_of(name, written), **(options or {})}))
    if not isinstance(policy, Policy):
        raise ConfigError(f"policy '{name}' has no method plan(problem, *, seed, time_budget_ms, clock)")
    return policy


def _options_of(name: str, written: str) -> dict[str, str]:
    options = {}
    for part in filter(None, written.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"policy '{name}' cannot take '{part}': write options as {name}:key=value,key=value")
        options[key.strip()] = value.strip()
    return options


def _find(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return factory
    plugin = _plugins().get(name)
    if plugin is None:
        raise ConfigError(f"unknown planning policy '{name}'; known: {', '.join(policy_names())}")
    try:
        loaded: Callable[..., Any] = plugin.load()
    except (ImportError, AttributeError) as fault:
        raise ConfigError(f"planning policy '{name}' cannot be loaded from {plugin.value}: {fault}") from fault
    return loaded


def _plugins() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _converted(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options of the types that the policy's fields declare."""
    if not options or not dataclasses.is_dataclass(factory):
        return options
    known = [field.name for field in dataclasses.fields(factory)]
    for key in options:
        if key not in known:
            raise ConfigError(f"policy '{name}' has no option '{key}'; known: {', '.join(known) or 'none'}")
    from pydantic import TypeAdapter, ValidationError  # costs more to import than all of planning

    try:
        checked = TypeAdapter(factory).validate_python(options)
    except ValidationError as fault:
        first = fault.errors()[0]
        raise ConfigError(f"policy '{name}', option '{first['loc'][0]}' = {first['input']!r}: {first['msg']}") from None
    return {key: getattr(checked, key) for key in options}
