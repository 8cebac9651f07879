"""Runs a sweep: server, shaped links and clients on their machines, one run after another, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from experiment_manager.hosts import Host, Hosts
from experiment_manager.ssh import Job, Machine, RemoteError
from experiment_manager.sweep import Device, Run, Sweep, share

READY_TIMEOUT_S = 300.0
_SETTLE_S = 60.0
"""How long after its nominal end a run may take to collect answers and flush its logs."""
ATTEMPT_FILE = "run.json"


@dataclass(frozen=True)
class Verdict:
    """How one attempt at a run ended.

    Attributes:
        state: ``done``; ``starved`` when a client or the server waited too long for a processor, so that the figures
            are not the system's; ``failed``.
        reason: in words, for all but ``done``.
    """

    state: str
    reason: str = ""


Settle = Callable[[Run, Path], dict[str, Any]]
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

    def pending(self, runs: Sequence[Run]) -> list[Run]:
        """Runs without a valid result yet: what a resumed sweep still has to do."""
        return [run for run in runs if self.verdict(run).state != "done"]

    def verdict(self, run: Run) -> Verdict:
        """How the latest attempt at a run ended."""
        try:
            told = json.loads((self.out / run.name / ATTEMPT_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return Verdict("pending")
        return Verdict(told["state"], told["reason"])

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
        directory.mkdir(parents=True, exist_ok=True)
        remote = f"{run.name.replace('/', '_')}-{attempt}-{time.time_ns():x}"
        try:
            with Stage(self, run, remote) as stage:
                verdict = stage.perform()
                stage.collect(directory)
            if verdict.state == "done":
                self.settle(run, directory)
        except RemoteError as fault:
            verdict = Verdict("failed", str(fault))
        record = {**dataclasses.asdict(run), "attempt": attempt, **dataclasses.asdict(verdict)}
        beside = directory / f"{ATTEMPT_FILE}.part"
        beside.write_text(json.dumps(record, indent=2), encoding="utf-8")
        beside.replace(directory / ATTEMPT_FILE)
        return verdict


class Stage:
    """One attempt on the machines; on leaving, everything it started there has ended, also after Ctrl-C."""

    def __init__(self, runner: Runner, run: Run, name: str) -> None:
        self._runner = runner
        self._run = run
        self._name = name
        self._machines = [Machine(host, runner.hosts) for host in runner.hosts.machines]
        self._jobs: list[Job] = []
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        for machine in self._machines:
            machine.connect()
            self._resources.callback(machine.close)
        return self

    def __exit__(self, *fault: object) -> None:
        try:
            self._stop()
        finally:
            self._resources.close()

    def perform(self) -> Verdict:
        """Start server, links and clients, wait for the clients to end, and judge."""
        address = self._start_server()
        clients = [
            client
            for machine, devices in self._parts()
            for client in self._start_clients(machine, devices, self._start_links(machine, devices, address))
        ]
        for client in clients:
            self._ready(client, "the clients")
        for client in clients:
            client.go()
        started = time.monotonic()
        told = [self._await_client(client, started) for client in clients]
        self._stop()
        ends = [*told, *(job.wait("exited", 5.0) for job in self._jobs)]
        for client, end in zip(clients, told, strict=True):
            if end["state"] != "exited" or end["exit"]["status"] != 0:
                return Verdict("failed", f"a client on {client.machine.host.label} {end['state']}: {client.tail()}")
        if any(end["exit"] and end["exit"].get("starved") for end in ends):
            return Verdict("starved", "a process waited for a processor for more than a tenth of its running time")
        return Verdict("done")

    def collect(self, into: Path) -> None:
        """Fetch the logs of every machine into ``into/logs`` and remove them there."""
        for machine in self._machines:
            remote = self._directory(machine.host)
            machine.fetch(remote, into / "logs" / machine.host.label)
            machine.run(["rm", "-rf", str(remote)])

    def _parts(self) -> Iterator[tuple[Machine, tuple[Device, ...]]]:
        clients = self._machines[1:]
        for machine, devices in zip(clients, share(self._run.devices, len(clients)), strict=True):
            if devices:
                yield machine, devices

    def _directory(self, host: Host) -> PurePosixPath:
        return host.work_dir / self._name

    def _launch(self, machine: Machine, name: str, module: str, arguments: Sequence[str], *, hold: bool = False) -> Job:
        directory = self._directory(machine.host)
        machine.run(["mkdir", "-p", str(directory)])
        job = machine.job(directory / name)
        self._jobs.append(job)
        job.start(module, [*arguments, "--out", str(directory / f"{name}-logs")], hold=hold)
        return job

    def _ready(self, job: Job, what: str) -> dict[str, Any]:
        told = job.wait("ready", READY_TIMEOUT_S, lambda: self._runner.watch(self._run, f"waiting for {what}"))
        if told["state"] != "ready":
            raise RemoteError(f"{what} on {job.machine.host.label} is {told['state']}, not ready: {job.tail()}")
        ready: dict[str, Any] = told["ready"]
        return ready

    def _start_server(self) -> str:
        sweep, machine = self._runner.sweep, self._machines[0]
        arguments = [
            *("--zoo", sweep.zoo, "--devices", str(sweep.devices), "--runtime", sweep.runtime),
            *("--policy", self._run.policy, "--seed", str(self._run.seed)),
            *("--host", machine.host.host, "--port", "0"),
        ]
        job = self._launch(machine, "server", "server", arguments)
        return f"{machine.host.host}:{self._ready(job, 'the server')['port']}"

    def _start_links(self, machine: Machine, devices: Sequence[Device], address: str) -> dict[int, str]:
        """Address that each device connects to: its shaped link, or the server itself."""
        shaping = self._runner.sweep.shaping
        if shaping == "none":
            return {device.client_id: address for device in devices}
        arguments = [shaping, "--target", address, "--seed", str(self._run.seed)]
        if shaping == "tc":
            arguments += ["--interface", machine.host.interface]
        for device in devices:
            arguments += ["--link", f"client-{device.client_id}={self._run.trace}"]
        job = self._launch(machine, "network", "network_shaping", arguments)
        links = self._ready(job, "the links")["links"]
        return {
            device.client_id: f"{link['host']}:{link['port']}"
            for device in devices
            for link in (links[f"client-{device.client_id}"],)
        }

    def _start_clients(self, machine: Machine, devices: Sequence[Device], addresses: dict[int, str]) -> list[Job]:
        jobs = []
        for device in devices:
            arguments = [
                *("--server", addresses[device.client_id], "--client-id", str(device.client_id)),
                *("--source", source_of(self._run, device), "--seed", str(self._run.seed + device.client_id)),
                *("--slo-ms", f"{device.slo_ms:g}", "--fps", f"{device.fps:g}"),
                *("--seconds", f"{self._runner.sweep.seconds:g}"),
            ]
            jobs.append(self._launch(machine, f"client-{device.client_id}", "client", arguments, hold=True))
        return jobs

    def _await_client(self, client: Job, started: float) -> dict[str, Any]:
        seconds = self._runner.sweep.seconds

        def tick() -> None:
            passed = min(time.monotonic() - started, seconds)
            self._runner.watch(self._run, f"streaming, {passed:.0f} of {seconds:g} s")

        left_s = started + seconds + _SETTLE_S - time.monotonic()
        return client.wait("exited", max(1.0, left_s), tick)

    def _stop(self) -> None:
        """Stop what still runs, clients first; a machine that cannot be reached does not keep the others running."""
        for job in reversed(self._jobs):
            with contextlib.suppress(RemoteError):
                job.stop()


def source_of(run: Run, device: Device) -> str:
    """What a device sees: in the synthetic scene every device has a street of its own."""
    return f"synthetic:{run.seed + device.client_id}" if run.source == "synthetic" else run.source
