"""Variants changed per device and step while links walk: at most half of a cold start's, at 0.999 of its accuracy.

8 devices, 64 clients, 40 steps of 5 % on the log of every link's rate. Cold: every step is planned on its own, without
a previous plan; its variants then go to the devices that hold equal ones. All run on the same walks in one process.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter

import numpy as np

from moonjelly.planning import Plan, check
from moonjelly.planning.instances import draw_fleet
from moonjelly.planning.multiset import Multiset

CHANGES_BAR, ACCURACY_BAR = 0.5, 0.999
DEVICES, CLIENTS = 8, 64


def walk(churn: float | None, seed: int, steps: int) -> tuple[float, float]:
    """Changes per device and step, and mean accuracy; ``None`` is the cold start."""
    policy = Multiset() if churn is None else Multiset(churn=churn)
    rng = np.random.default_rng(seed)
    fleet = draw_fleet(rng, CLIENTS)
    previous: Plan | None = None
    changes, accuracy = 0, []
    for step in range(steps + 1):
        problem = fleet.problem(DEVICES, previous=None if churn is None else previous)
        plan = policy.plan(problem, seed=step)
        report = check(problem, plan)
        report.require_valid()
        accuracy.append(report.accuracy)
        if previous is not None:
            kept = variants(plan) & variants(previous)
            changes += DEVICES - sum(kept.values())
        previous = plan
        fleet = fleet.walked(rng)
    return changes / steps / DEVICES, float(np.mean(accuracy))


def variants(plan: Plan) -> Counter[tuple[str, int]]:
    return Counter((one.group, one.variant) for one in plan.assignments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="default: of the clock")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{options.walks} walks of {options.steps} steps, seed {options.seed}; {DEVICES} devices, {CLIENTS} clients")
    default = Multiset().churn
    means = {}
    for churn in (None, 0.0, *sorted({0.001, 0.002, 0.005, default})):
        runs = [walk(churn, options.seed + index, options.steps) for index in range(options.walks)]
        means[churn] = np.mean(runs, axis=0)
        changes, accuracy = means[churn] / means[None]
        name = "cold" if churn is None else f"churn {churn:g}"
        print(f"{name:12s} {means[churn][0]:.3f} changes per device and step, {changes:.2f} of cold; {accuracy:.5f}")
    changes, accuracy = means[default] / means[None]
    print(
        f"churn {default:g}: {changes:.2f} of cold's changes (bar {CHANGES_BAR}), "
        f"{accuracy:.5f} of its accuracy (bar {ACCURACY_BAR})"
    )
    return 0 if changes <= CHANGES_BAR and accuracy >= ACCURACY_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
