"""Runs a sweep: server, shaped links and clients on their machines, one run after another, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_manager.hosts import Hosts
from experiment_manager.ssh import Machine, RemoteError
from experiment_manager.stage import Stage, Verdict, clean_interface
from experiment_manager.sweep import Device, Run, Sweep, conditions
from moonjelly import folder_lock
from moonjelly.errors import MoonjellyError, SchemaError, cause
from moonjelly.telemetry import read_record

ATTEMPT_FILE = "run.json"
Settle = Callable[[Run, Path], object]
"""Computes and writes a run's ``summary.json`` from its collected logs."""
Watch = Callable[[Run, str], None]
"""Is told what a run is doing, about once a second."""


@dataclass(frozen=True)
class Runner:
    """Everything that the runs of a sweep have in common.

    Attributes:
        hosts: the machines.
        sweep: the matrix.
        out: where results are collected.
        settle: see :data:`Settle`.
        watch: see :data:`Watch`.
    """

    hosts: Hosts
    sweep: Sweep
    out: Path
    settle: Settle
    watch: Watch

    @property
    def owner(self) -> str:
        """Marks what this sweep starts on the machines: the manager's host and where it collects."""
        place = f"{platform.node()}:{self.out.resolve()}"
        return hashlib.sha256(place.encode()).hexdigest()[:10]

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Hold ``out`` for this process.

        Raises:
            MoonjellyError: another manager collects there.
        """
        return folder_lock.held(self.out, "runs a sweep into")

    def clear(self) -> list[str]:
        """Stop and remove what earlier runs of this sweep left on the machines when their manager was killed."""
        removed = []
        for host in self.hosts.machines:
            with Machine(host, self.hosts) as machine:
                found = machine.agent("clear", str(machine.work), "--prefix", f"{self.owner}-")
                removed += [f"{host.label}: {name}" for name in found]
                if found and self.sweep.shaping == "tc" and host.interface:
                    clean_interface(machine)
        return removed

    def pending(self, runs: Sequence[Run]) -> list[Run]:
        """Runs without a valid result yet: what a resumed sweep still has to do.

        Raises:
            MoonjellyError: a run was done under other conditions, or of other devices, traces or seeds under the same
                name, so that its result would stand for something else; or by a version that did not record them.
        """
        for run in runs:
            told = self._record(run)
            if not told:
                continue
            there = {**told["conditions"], **_particulars(told)}
            wanted = {**conditions(self.sweep), **_particulars(dataclasses.asdict(run))}
            other = [
                f"{key} = {there.get(key)} there, {value} here"
                for key, value in wanted.items()
                if there.get(key) != value
            ]
            if other:
                raise MoonjellyError(f"{self.out / run.name} was run with {other[0]}; name another --out")
        return [run for run in runs if self.verdict(run).state != "done"]

    def verdict(self, run: Run) -> Verdict:
        """How the latest attempt at a run ended."""
        told = self._record(run)
        return Verdict(told["state"], told["reason"]) if told else Verdict("pending")

    def _record(self, run: Run) -> dict[str, Any]:
        path = self.out / run.name / ATTEMPT_FILE
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return _complete(told, path)

    def run(self, run: Run) -> Verdict:
        """Attempt a run, and again while it fails or is starved and tries are left. Keeps every attempt's logs."""
        verdict = Verdict("pending")
        for attempt in range(self.sweep.retries + 1):
            self._set_aside(run)
            verdict = self._attempt(run, attempt)
            if verdict.state == "done":
                break
        return verdict

    def _set_aside(self, run: Run) -> None:
        """Move what an earlier attempt left out of the way; nothing is overwritten."""
        directory = self.out / run.name
        if not directory.exists():
            return
        earlier = [path for path in directory.iterdir() if not path.name.startswith("attempt-")]
        if not earlier:
            return
        number = sum(1 for path in directory.iterdir() if path.name.startswith("attempt-"))
        kept = directory / f"attempt-{number}"
        kept.mkdir()
        for path in earlier:
            path.rename(kept / path.name)

    def _attempt(self, run: Run, attempt: int) -> Verdict:
        directory = self.out / run.name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            verdict = self._perform(run, attempt, directory)
            common = {"attempt": attempt, "conditions": conditions(self.sweep)}
            record = {**dataclasses.asdict(run), **common, **dataclasses.asdict(verdict)}
            beside = directory / f"{ATTEMPT_FILE}.part"
            beside.write_text(json.dumps(record, indent=2), encoding="utf-8")
            beside.replace(directory / ATTEMPT_FILE)
        except OSError as fault:
            remedy = "free some space there, or name another --out"
            raise MoonjellyError(f"results cannot be kept in {directory}: {cause(fault)}; {remedy}") from None
        return verdict

    def _perform(self, run: Run, attempt: int, directory: Path) -> Verdict:
        """An attempt, with its logs and figures in ``directory``."""
        name = f"{self.owner}-{run.name.replace('/', '_')}-{attempt}"
        watch = functools.partial(self.watch, run)
        try:
            with Stage(self.hosts, self.sweep, run, name, watch) as stage:
                try:
                    verdict = stage.perform()
                except RemoteError as fault:
                    verdict = Verdict("failed", str(fault))
                stage.collect(directory / "logs")
            if verdict.state == "done":
                self.settle(run, directory)
        except RemoteError as fault:
            return Verdict("failed", str(fault))
        return verdict


def read_attempt(path: Path) -> dict[str, Any]:
    """What ``run.json`` records of an attempt at a run: fields of :class:`Run` and :class:`Verdict`, and conditions.

    Raises:
        SchemaError: another version of moonjelly wrote it, or it is not JSON.
        OSError: it cannot be read.
    """
    return _complete(read_record(path), path)


def _complete(told: dict[str, Any], path: Path) -> dict[str, Any]:
    of_run, of_device = ({field.name for field in dataclasses.fields(kind)} for kind in (Run, Device))
    missing = of_run.union(("conditions", "state", "reason")) - told.keys()
    missing.update(name for device in told.get("devices", ()) for name in of_device - device.keys())
    if missing:
        raise SchemaError(
            f"{path} does not tell {', '.join(sorted(missing))}: another version of moonjelly wrote it; use that one, "
            "or name another --out"
        )
    return told


def _particulars(run: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's result beside its sweep's conditions, and need not show in its name."""
    goals = ", ".join(f"{device['slo_ms']:g} ms at {device['fps']:g} fps" for device in run["devices"])
    return {"seed": run["seed"], "trace": run["trace"], "source": run["source"], "devices": goals}
