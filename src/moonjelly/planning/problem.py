"""The planning problem and its answer.

A plan maps every client to one device or rejects it; every device runs one (group, variant) at one batch size.
A client *fits* a device running variant ``j`` at batch ``b`` iff ``latency_factor * lat[j, b] <= budget[j]``; the
clients of a device must offer less load than its throughput less some head-room (Jellyfish, section III;
``docs/planning.md``).

What cannot mean anything (NaN, a negative rate, an id twice) is a :class:`~moonjelly.errors.ProblemError` when the
object is made, so that no policy ever sees it. What merely cannot be served (a dead link, no device, a group without
a profile) is a valid problem whose plan rejects clients by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from moonjelly.errors import ProblemError
from moonjelly.planning.head_room import DEFAULT_RHO
from moonjelly.profiles import Profile
from moonjelly.types import DEFAULT_GROUP


@dataclass(frozen=True, slots=True)
class Client:
    """What planning knows of one client.

    Attributes:
        client_id: unique in the problem.
        fps: nominal frame rate, any positive real number.
        slo_ms: end-to-end deadline.
        budget_ms: per variant of the client's group, the time that is left for waiting and inference once the
            network and the server's overhead are paid; 0 where the link cannot carry that variant at ``fps``.
        group: model group.

    Raises:
        ProblemError: a rate or deadline that is not positive and finite, a budget that is negative or not finite.
    """

    client_id: int
    fps: float
    slo_ms: float
    budget_ms: tuple[float, ...]
    group: str = DEFAULT_GROUP

    def __post_init__(self) -> None:
        if not 0.0 < self.fps < math.inf:
            raise ProblemError(f"client {self.client_id}: fps is {self.fps}; it must be positive and finite")
        if not 0.0 < self.slo_ms < math.inf:
            raise ProblemError(f"client {self.client_id}: slo_ms is {self.slo_ms}; it must be positive and finite")
        if not self.group:
            raise ProblemError(f"client {self.client_id}: its group is empty; '{DEFAULT_GROUP}' is the usual one")
        # One pass in C for the usual case; the loop only finds the culprit.
        if self.budget_ms and not (min(self.budget_ms) >= 0.0 and math.isfinite(sum(self.budget_ms))):
            for variant, budget in enumerate(self.budget_ms):
                if not 0.0 <= budget < math.inf:
                    raise ProblemError(
                        f"client {self.client_id}: budget_ms[{variant}] is {budget}; it must be finite and not "
                        "negative (0 says that this variant cannot be carried)"
                    )


@dataclass(frozen=True, slots=True)
class Device:
    """One executor.

    Attributes:
        device_id: unique in the problem.
        kind: names its profile.
        speed: factor on the profile, 1 when all of the device serves, less while training takes a share.

    Raises:
        ProblemError: an empty kind, a speed that is not positive and finite.
    """

    device_id: int
    kind: str
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not self.kind:
            raise ProblemError(f"device {self.device_id}: its kind is empty; it must name a profile")
        if not 0.0 < self.speed < math.inf:
            raise ProblemError(
                f"device {self.device_id}: speed is {self.speed}; it must be positive and finite "
                "(leave a device out that does not serve)"
            )


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one device does under a plan.

    Attributes:
        device_id: the device.
        group: model group it serves.
        variant: index into the group's profile.
        batch: planned batch size.
        clients: ids of the clients that it serves; may be empty.
    """

    device_id: int
    group: str
    variant: int
    batch: int
    clients: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A mapping of clients to devices.

    Attributes:
        assignments: one per device of the problem, in its order.
        rejected: client id to the reason in words.
    """

    assignments: tuple[Assignment, ...]
    rejected: Mapping[int, str] = field(default_factory=dict)

    def device_of(self, client_id: int) -> Assignment | None:
        """The assignment that serves ``client_id``, or ``None`` when it is rejected or unknown."""
        for assignment in self.assignments:
            if client_id in assignment.clients:
                return assignment
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything a policy may look at.

    Attributes:
        clients: at most one entry per id; may be empty.
        devices: at most one entry per id; may be empty.
        profiles: (device kind, group) to profile; all profiles of a group list the same variants.
        previous: the plan in force, for warm starts and the churn penalty; it may know other clients and devices.
        latency_factor: one batch waiting and one running (2 in the paper).
        rho: share of a device's throughput that may be planned, in (0, 1]; more of it where batches are long, see
            :func:`~moonjelly.planning.head_room.limit_fps`.
        changes_per_min: variants changed per device and minute of late; the more, the more a further change should
            bring.

    Raises:
        ProblemError: an id twice, a device kind without a profile, a client whose budgets do not match its group's
            variants, profiles of one group that differ in their variants, an impossible factor or share.
    """

    clients: tuple[Client, ...]
    devices: tuple[Device, ...]
    profiles: Mapping[tuple[str, str], Profile]
    previous: Plan | None = None
    latency_factor: float = 2.0
    rho: float = DEFAULT_RHO
    changes_per_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.latency_factor < math.inf:
            raise ProblemError(f"latency_factor is {self.latency_factor}; it must be positive and finite (2 is usual)")
        if not 0.0 < self.rho <= 1.0:
            raise ProblemError(f"rho is {self.rho}; it must be in (0, 1]")
        if not 0.0 <= self.changes_per_min < math.inf:
            raise ProblemError(f"changes_per_min is {self.changes_per_min}; it must be finite and not negative")
        _check_unique("client", [client.client_id for client in self.clients])
        _check_unique("device", [device.device_id for device in self.devices])
        widths = _variants_per_group(self.profiles)
        kinds = {kind for kind, _ in self.profiles}
        for device in self.devices:
            if device.kind not in kinds:
                raise ProblemError(
                    f"device {device.device_id}: there is no profile of kind '{device.kind}'; "
                    f"profiled kinds: {', '.join(sorted(kinds)) or 'none'}"
                )
        for client in self.clients:
            width = widths.get(client.group)
            if width is not None and len(client.budget_ms) != width:
                raise ProblemError(
                    f"client {client.client_id}: {len(client.budget_ms)} budgets for the {width} variants of "
                    f"group '{client.group}'; give one per variant"
                )


def _check_unique(noun: str, ids: list[int]) -> None:
    if len(set(ids)) != len(ids):
        twice = next(one for position, one in enumerate(ids) if one in ids[:position])
        raise ProblemError(f"{noun} id {twice} occurs twice; ids must be unique")


def _variants_per_group(profiles: Mapping[tuple[str, str], Profile]) -> dict[str, int]:
    first: dict[str, tuple[str, Profile]] = {}
    for (kind, group), profile in profiles.items():
        kind_before, before = first.setdefault(group, (kind, profile))
        if before.variants != profile.variants:
            raise ProblemError(
                f"group '{group}': the profiles of '{kind_before}' and '{kind}' list different variants; "
                "profile the same zoo on every device kind"
            )
    return {group: len(profile.variants) for group, (_, profile) in first.items()}
