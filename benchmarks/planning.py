"""The planner against the optimum and the clock: accuracy ratio to a proven bound, CPU time from problem to plan.

Instances as Jellyfish's study draws them (rho 1, as the bound has it). The bound is the smaller of the linear
relaxation of the aggregated model and what CPLEX (where it is installed and takes the size, else HiGHS) proves of the
model itself within a limit. Times are CPU times of one thread and include the checker. Each figure must hold in
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

from moonjelly.planning import Policy, Problem, check, create_policy, exact
from moonjelly.planning.instances import random_problem

PUBLISHED_SA_DP_MS = 3400.0
"""CPU time of the published SA-DP at 8 devices and 64 clients on two such cores."""
SPEED_UP = 50.0


@dataclass(frozen=True)
class Bar:
    devices: int
    clients: int
    p99_ms: float
    mean: float
    least: float
    prove_s: float  # time to prove a bound below the linear relaxation's; 0 where that hardly moves it


BARS = (
    Bar(2, 8, 10.0, 0.9985, 0.995, 2.0),
    Bar(2, 16, 10.0, 0.9985, 0.995, 2.0),
    Bar(4, 16, 10.0, 0.9985, 0.995, 2.0),
    Bar(4, 32, 20.0, 0.999, 0.997, 5.0),
    Bar(8, 32, 20.0, 0.999, 0.997, 5.0),
    Bar(8, 64, 40.0, 0.9985, 0.996, 5.0),
    Bar(16, 160, 100.0, 0.998, 0.996, 0.0),
    Bar(64, 1000, 400.0, 0.998, 0.995, 0.0),
)


@dataclass(frozen=True)
class Runs:
    ratio: list[float]
    effectiveness: list[float]
    cpu_ms: list[float]


def run(policy: Policy, problems: list[Problem], bounds: list[float], seed: int) -> Runs:
    """Plan and check every problem."""
    ratio, effectiveness, cpu_ms = [], [], []
    for problem, bound in zip(problems, bounds, strict=True):
        gc.collect()  # rubbish of the bound's solver is not the planner's
        started = time.process_time()
        plan = policy.plan(problem, seed=seed)
        report = check(problem, plan)
        cpu_ms.append((time.process_time() - started) * 1000.0)
        report.require_valid()
        ratio.append(report.accuracy / bound)
        effectiveness.append(report.effectiveness)
    return Runs(ratio, effectiveness, cpu_ms)


def bound_of(problem: Problem, prove_s: float) -> float:
    if prove_s:
        return exact.upper_bound(problem, integer=True, solver="auto", time_limit_s=prove_s)
    return exact.upper_bound(problem)


def measure(bar: Bar, seeds: list[int], instances: int) -> bool:
    """Print a row per set; whether all of them hold."""
    ours, theirs = create_policy("multiset"), create_policy("sa-dp")
    good = True
    for seed in seeds:
        rng = np.random.default_rng(seed)
        problems = [random_problem(rng, devices=bar.devices, clients=bar.clients) for _ in range(instances)]
        bounds = [bound_of(problem, bar.prove_s) for problem in problems]
        runs = run(ours, problems, bounds, seed)
        p99 = float(np.percentile(runs.cpu_ms, 99))
        mean, least = float(np.mean(runs.ratio)), min(runs.ratio)
        short = [
            name
            for name, fails in (
                ("time", p99 > bar.p99_ms),
                ("mean", mean < bar.mean),
                ("min", least < bar.least),
                ("effectiveness", min(runs.effectiveness) < 1.0),
                ("bound", max(runs.ratio) > 1.0 + 1e-6),
            )
            if fails
        ]
        row = (
            f"{bar.devices:3d}/{bar.clients:<5d} seed {seed:<11d} p50 {np.median(runs.cpu_ms):6.1f}  p99 {p99:6.1f} ms "
            f"(bar {bar.p99_ms:3.0f})  ratio mean {mean:.5f} (bar {bar.mean})  min {least:.5f} (bar {bar.least})  "
            f"at bound {np.mean(np.array(runs.ratio) > 1 - 1e-6):4.0%}"
        )
        if bar.clients <= 64:
            baseline = run(theirs, problems, bounds, seed)
            row += f"  sa-dp {np.mean(baseline.ratio):.5f} in {np.mean(baseline.cpu_ms):.1f} ms"
            if mean < float(np.mean(baseline.ratio)):
                short.append("below sa-dp")
            if (bar.devices, bar.clients) == (8, 64):
                if np.mean(runs.cpu_ms) * SPEED_UP > PUBLISHED_SA_DP_MS:
                    short.append("speed-up")
                if np.mean(baseline.cpu_ms) > PUBLISHED_SA_DP_MS:
                    short.append("sa-dp's time")
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
