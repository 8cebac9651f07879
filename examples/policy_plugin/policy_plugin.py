"""A planning policy of one's own, in ten lines: one variant for good, first come, first served."""

import math
from dataclasses import dataclass

from moonjelly.clock import Clock
from moonjelly.planning import Draft, Plan, Problem, finish


@dataclass(frozen=True)
class FirstFit:
    """Every device runs ``variant`` of the first group that its kind has a profile for; its fields are its options."""

    variant: int = 0

    def plan(
        self, problem: Problem, *, seed: int = 0, time_budget_ms: float = math.inf, clock: Clock | None = None
    ) -> Plan:
        """Choose what the devices run; ``finish`` places whom it can, sizes the batches and names who is rejected."""
        drafts = []
        for device in problem.devices:
            group, profile = next(
                (group, one) for (kind, group), one in problem.profiles.items() if kind == device.kind
            )
            drafts.append(Draft(device, group, min(self.variant, len(profile.variants) - 1)))
        return finish(problem, drafts)
