"""What the core is told once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moonjelly.rpc import messages
from server.core.placement import Rules


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one server.

    Attributes:
        zoos: group to what its clients are told of its zoo.
        speeds: factor on the profile per device, before anything is measured.
        slots: per device.
        policy: name, for the log.
    """

    zoos: Mapping[str, messages.ZooInfo]
    rules: Rules
    speeds: Sequence[float]
    slots: int
    policy: str
    interval_ns: int
    plan_budget_ns: int
    session_ttl_ns: int
    max_sessions: int
    max_frame_bytes: int
    max_outstanding: int
