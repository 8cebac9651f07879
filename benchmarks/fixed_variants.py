"""Effective F1 of the whole system against every fixed variant, on the same scenes, links and seeds.

Bar: no fixed variant reaches more effective F1 (every captured frame counts, a missed one has no detections). Each run
is a demo run of its own: a server, client processes and shaped links on this machine; miss rates are printed beside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import serving
from cli.demo.run import run_demo
from cli.demo.settings import DemoSettings
from moonjelly.repository import load_zoo
from moonjelly.telemetry import read_record


def run(options: argparse.Namespace, policy: str, seed: int, out: Path) -> dict[str, float]:
    settings = DemoSettings(
        zoo=options.zoo,
        source=options.source,
        trace=options.trace,
        clients=options.clients,
        seconds=options.seconds,
        seed=seed,
        out=out,
        live=False,
        policy=policy,
    )
    if run_demo(settings):
        raise SystemExit(f"the run with {policy} and seed {seed} was not complete: see {out}")
    summary = read_record(out / "summary.json")
    return {name: summary[name] for name in ("effective_f1", "miss_rate", "effective_accuracy")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", default="synthetic")
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--trace", default="lte-city")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    serving.describe()
    names = [variant.name for variant in load_zoo(options.zoo).variants]
    policies = ["multiset", *(f"fixed:variant={name}" for name in names)]
    reached: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for policy in policies:
            parts = [
                run(options, policy, seed, Path(folder) / f"{policy.replace(':', '-')}-{seed}")
                for seed in range(options.seeds)
            ]
            reached[policy] = sum(part["effective_f1"] for part in parts) / len(parts)
            missed = sum(part["miss_rate"] for part in parts) / len(parts)
            print(f"{policy}: effective F1 {reached[policy]:.4f}, missed {100 * missed:.2f} %", flush=True)
    best = max(policies[1:], key=lambda policy: reached[policy])
    ratio = reached["multiset"] / reached[best]
    print(f"effective F1: {ratio:.3f} x the best fixed variant ({best}; bar: 1 x)")
    return 0 if ratio >= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
