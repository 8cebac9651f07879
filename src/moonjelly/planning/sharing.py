"""Which group each device serves, for policies that decide that first and by load alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moonjelly.planning.problem import Problem


def apportion(weights: Sequence[float], seats: int) -> list[int]:
    """Whole seats in proportion to ``weights`` by largest remainder; all zeros where no weight is positive."""
    total = math.fsum(weights)
    if total <= 0.0 or seats <= 0:
        return [0] * len(weights)
    exact = [seats * weight / total for weight in weights]
    whole = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda one: whole[one] - exact[one])
    for index in by_remainder[: seats - sum(whole)]:
        whole[index] += 1
    return whole


def share_devices(problem: Problem) -> dict[str, list[int]]:
    """Group to the positions of the devices that serve it, in proportion to the groups' offered load.

    A device goes to the group that lacks most among those that its kind has a profile for.
    """
    groups = sorted({client.group for client in problem.clients})
    offered = [math.fsum(client.fps for client in problem.clients if client.group == group) for group in groups]
    wanted = dict(zip(groups, apportion(offered, len(problem.devices)), strict=True))
    shares: dict[str, list[int]] = {group: [] for group in groups}
    for position, device in enumerate(problem.devices):
        able = [group for group in groups if (device.kind, group) in problem.profiles]
        if able:
            chosen = max(able, key=lambda group: wanted[group] - len(shares[group]))
            shares[chosen].append(position)
    return shares
