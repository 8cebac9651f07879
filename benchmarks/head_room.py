"""What keeping room on a device brings: misses and effective accuracy per `rho`, without and with jittery arrivals.

Two devices, 25 frames/s, Jellyfish's WiFi trace, in simulation. The default must not miss more than planning the whole
device does where arrivals jitter, and lose at most a hundredth of its accuracy in either row.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from dataclasses import replace

from moonjelly.clock import CpuClock
from moonjelly.planning.head_room import DEFAULT_RHO
from moonjelly.reference import reference_profile
from simulation import study
from simulation.study import StudyOptions
from simulation.systems import System
from simulation.workload import Timing, WorkloadOptions

SHARES = (0.85, DEFAULT_RHO, 0.95, 1.0)
LOADS = {
    "8 clients, 150 ms, sizes 1, jitter 0.3 ms": WorkloadOptions(
        clients=8, fps=(25.0,), slo_ms=(150.0,), seconds=30.0, warmup_s=8.0
    ),
    "12 clients, 75 to 150 ms, sizes 0.4, jitter 5 ms": WorkloadOptions(
        clients=12,
        fps=(25.0,),
        slo_ms=(75.0, 100.0, 150.0),
        seconds=20.0,
        warmup_s=8.0,
        frame_scale=0.4,
        timing=Timing(jitter_ms=5.0),
    ),
}
LOSS = 0.01


def measure(load: WorkloadOptions, rho: float, seeds: range) -> tuple[float, float]:
    """Miss rate and effective accuracy, means over seeds."""
    system = replace(System(), rho=rho)
    options = StudyOptions(("wifi_trace",), (system,), seeds, load, reference_profile(max_batch=12))
    runs = [study.simulate(options, run, CpuClock()) for run in options.runs()]
    return statistics.fmean(run.miss_rate for run in runs), statistics.fmean(run.effective_accuracy for run in runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="the first")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{options.seeds} seeds from {options.seed}; misses in % / effective accuracy")
    print(f"{'rho':50s}" + "".join(f"{rho:18.2f}" for rho in SHARES))
    good = True
    for name, load in LOADS.items():
        seeds = range(options.seed, options.seed + options.seeds)
        found = {rho: measure(load, rho, seeds) for rho in SHARES}
        print(f"{name:50s}" + "".join(f"{100 * misses:9.3f} / {right:.4f}" for misses, right in found.values()))
        (misses, right), (all_misses, all_right) = found[DEFAULT_RHO], found[1.0]
        good &= misses <= all_misses and right >= (1.0 - LOSS) * all_right
    print(f"rho {DEFAULT_RHO:g} {'holds' if good else 'is short'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
