"""The planning problem and its answer.

A plan maps every client to one device or rejects it; every device runs one (group, variant) at one batch size.
A client *fits* a device running variant ``j`` at batch ``b`` iff ``latency_factor * lat[j, b] <= budget[j]``; the
clients of a device must offer less load than ``rho`` of its throughput (Jellyfish, section III; ``docs/planning.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """

    client_id: int
    fps: float
    slo_ms: float
    budget_ms: tuple[float, ...]
    group: str = DEFAULT_GROUP


@dataclass(frozen=True, slots=True)
class Device:
    """One executor.

    Attributes:
        device_id: unique in the problem.
        kind: names its profile.
        speed: factor on the profile, 1 when all of the device serves, less while training takes a share.
    """

    device_id: int
    kind: str
    speed: float = 1.0


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
        clients: at most one entry per id.
        devices: at most one entry per id.
        profiles: (device kind, group) to profile; all profiles of a group list the same variants.
        previous: the plan in force, for warm starts and the churn penalty.
        latency_factor: one batch waiting and one running (2 in the paper).
        rho: share of a device's throughput that may be planned.
    """

    clients: tuple[Client, ...]
    devices: tuple[Device, ...]
    profiles: Mapping[tuple[str, str], Profile]
    previous: Plan | None = None
    latency_factor: float = 2.0
    rho: float = 0.9
