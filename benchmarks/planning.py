"""The planner against the optimum and the clock: accuracy ratio to a proven bound, CPU time from problem to plan.

Instances as Jellyfish's study draws them (rho 1, as the bound has it). The bound is the linear relaxation's of the
aggregated model; where the plan falls short of the bar against it, what CPLEX (where it is installed and takes the
size, else HiGHS) proves of the model, for longer and longer, and at last, up to 8 devices, what `exact.tightened_bound`
proves with every device on its own. Times are CPU times of one thread and include the checker. Each figure must hold in
every set of instances.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from moonjelly.clock import CpuClock
from moonjelly.planning import PlanReport, Policy, Problem, check, create_policy, exact
from moonjelly.planning.instances import random_problem

PUBLISHED_SA_DP_MS = 3400.0
"""CPU time of the published SA-DP at 8 devices and 64 clients on two such cores."""
SPEED_UP = 50.0

PROOF_LIMIT_S = 40.0
MODEL_LIMITS_S = (1.0, 8.0)


@dataclass(frozen=True)
class Bar:
    devices: int
    clients: int
    p99_ms: float
    mean: float
    least: float
    proven: float
    """Ratio at which a bound is tight enough: what is proven beyond takes longer and longer."""


BARS = (
    Bar(2, 8, 10.0, 0.9985, 0.995, 0.9999),
    Bar(2, 16, 10.0, 0.9985, 0.995, 0.9999),
    Bar(4, 16, 10.0, 0.9985, 0.995, 0.9999),
    Bar(4, 32, 20.0, 0.999, 0.997, 0.9995),
    Bar(8, 32, 20.0, 0.999, 0.997, 0.9992),
    Bar(8, 64, 40.0, 0.9985, 0.996, 0.9987),
    Bar(16, 160, 100.0, 0.998, 0.996, 0.9982),
    Bar(64, 1000, 400.0, 0.998, 0.995, 0.9982),
)


def plan_all(policy: Policy, problems: list[Problem], seed: int) -> tuple[list[PlanReport], list[float]]:
    """Plan and check every problem; CPU ms of each."""
    reports, cpu_ms = [], []
    for problem in problems:
        started = time.process_time()
        report = check(problem, policy.plan(problem, seed=seed))
        cpu_ms.append((time.process_time() - started) * 1000.0)
        report.require_valid()
        reports.append(report)
    return reports, cpu_ms


def bound_of(problem: Problem, accuracy: float, enough: float) -> float:
    """An upper bound, tightened until ``accuracy`` is ``enough`` of it or time is up."""
    bound = exact.upper_bound(problem)
    for limit_s in MODEL_LIMITS_S:
        if accuracy >= enough * bound:
            return bound
        bound = min(bound, exact.upper_bound(problem, integer=True, solver="auto", time_limit_s=limit_s))
    if accuracy >= enough * bound:
        return bound
    proven = exact.tightened_bound(problem, accuracy / enough, time_limit_s=PROOF_LIMIT_S, clock=CpuClock())
    return min(bound, proven)


def measure(bar: Bar, seeds: list[int], instances: int) -> bool:
    """Print a row per set; whether all of them hold."""
    good = True
    for seed in seeds:
        rng = np.random.default_rng(seed)
        problems = [random_problem(rng, devices=bar.devices, clients=bar.clients) for _ in range(instances)]
        gc.collect()
        gc.freeze()  # what others left behind is not the planner's to walk through
        reports, cpu_ms = plan_all(create_policy("multiset"), problems, seed)
        bounds = [
            bound_of(problem, report.accuracy, bar.proven) for problem, report in zip(problems, reports, strict=True)
        ]
        ratio = np.array([report.accuracy for report in reports]) / bounds
        p99 = float(np.percentile(cpu_ms, 99))
        faults = {
            "time": p99 > bar.p99_ms,
            "mean": ratio.mean() < bar.mean,
            "min": ratio.min() < bar.least,
            "effectiveness": min(report.effectiveness for report in reports) < 1.0,
            "bound": ratio.max() > 1.0 + 1e-6,
        }
        row = (
            f"{bar.devices:3d}/{bar.clients:<5d} seed {seed:<11d} p50 {np.median(cpu_ms):6.1f}  p99 {p99:6.1f} ms "
            f"(bar {bar.p99_ms:3.0f})  ratio mean {ratio.mean():.5f} (bar {bar.mean})  min {ratio.min():.5f} "
            f"(bar {bar.least})"
        )
        if bar.clients <= 64:
            theirs, their_ms = plan_all(create_policy("sa-dp"), problems, seed)
            their_ratio = np.array([report.accuracy for report in theirs]) / bounds
            row += f"  sa-dp {their_ratio.mean():.5f} in {np.mean(their_ms):.1f} ms"
            faults["below sa-dp"] = ratio.mean() < their_ratio.mean() - 1e-12
            if (bar.devices, bar.clients) == (8, 64):
                faults["speed-up"] = np.mean(cpu_ms) * SPEED_UP > PUBLISHED_SA_DP_MS
                faults["sa-dp's time"] = np.mean(their_ms) > PUBLISHED_SA_DP_MS
        short = [name for name, fails in faults.items() if fails]
        print(row + (f"  SHORT: {', '.join(short)}" if short else ""), flush=True)
        good &= not short
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=3, help="sets of instances")
    parser.add_argument("--instances", type=int, default=30, help="instances per set")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 2**31, help="of the first set; default: of the clock"
    )
    parser.add_argument("--quick", action="store_true", help="one set of 10 instances, up to 16 devices")
    options = parser.parse_args()
    sets, instances = (1, 10) if options.quick else (options.sets, options.instances)
    seeds = [options.seed + index for index in range(sets)]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in ("numpy", "highspy"))
    )
    for policy in (create_policy("multiset"), create_policy("exact")):  # imports are not planning
        policy.plan(random_problem(np.random.default_rng(0), devices=16, clients=20))
    bars = [bar for bar in BARS if not options.quick or bar.devices <= 16]
    held = [measure(bar, seeds, instances) for bar in bars]
    print(f"{sum(held)} of {len(held)} sizes hold their bars in all {sets} sets of {instances} instances")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
