"""Simulated seconds per CPU second, planning included: 8 clients at 15 fps on two devices, at least 20.

Median of several runs with different seeds; CPU time of this process, so that a busy machine counts little.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys

from moonjelly.clock import CpuClock
from moonjelly.reference import reference_profile
from simulation import study
from simulation.study import StudyOptions
from simulation.systems import System
from simulation.workload import WorkloadOptions

BAR = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated, per run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    workload = WorkloadOptions(clients=8, fps=(15.0,), slo_ms=(75.0, 100.0, 150.0), seconds=options.seconds)
    factors = []
    seeds = range(options.seed, options.seed + options.runs)
    fleet = StudyOptions(("lte-city",), (System(),), seeds, workload, reference_profile(max_batch=12))
    for run in fleet.runs():
        row = study.simulate(fleet, run, CpuClock())
        factors.append(row.real_time_factor)
        spent = f"{row.cpu_s:.2f} s CPU, {factors[-1]:.1f} x real time"
        print(f"seed {run.seed}: {row.frames} frames, {row.plans} plans, {spent}")
    factor = statistics.median(factors)
    print(f"{factor:.1f} x real time (bar: {BAR:.0f} x)")
    return 0 if factor >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
