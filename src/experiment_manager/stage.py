"""One attempt at a run on the machines: server, shaped links and clients, from start to collected logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from experiment_manager.agent import LEASE, has_failed
from experiment_manager.hosts import Hosts
from experiment_manager.ssh import Job, Machine, RemoteError
from experiment_manager.sweep import Device, Run, Sweep, share
from moonjelly.interrupts import deferred
from network_shaping.catalogue import at_random

READY_TIMEOUT_S = 300.0
_REGISTER_S = 120.0
"""For a client to reach the server: its link may stand at a few kbit/s, and its machine may be busy."""
LEASE_S = 90.0
"""How long the processes of a run outlive a manager that says nothing."""
_RENEW_S = 15.0
_SETTLE_S = 60.0
"""How long after its nominal end a run may take to collect answers and flush its logs."""


@dataclass(frozen=True)
class Verdict:
    """How one attempt at a run ended.

    Attributes:
        state: ``done``; ``starved`` when a client or the server waited too long for a processor, so that the figures
            are not the system's; ``failed``.
        reason: in words, for all but ``done``.
        processors: by process, seconds that it ran, seconds that it waited for a processor, how often it got one, and
            its time in all.
    """

    state: str
    reason: str = ""
    processors: tuple[tuple[str, float, float, float, float], ...] = ()


def judge(ends: dict[str, dict[str, Any]], starved_ms: float) -> Verdict:
    """Whether a run that came to its end may be used.

    Args:
        ends: of every process by name, what its supervisor counted: ``cpu_s``, ``waited_s``, ``turns`` and ``wall_s``.
        starved_ms: see :class:`~experiment_manager.sweep.Sweep`.
    """
    processors = tuple(
        (name, *(round(told[key], 3) for key in ("cpu_s", "waited_s", "turns", "wall_s")))
        for name, told in sorted(ends.items())
    )
    for name, ran_s, waited_s, turns, _ in processors:
        mean_ms = 1000.0 * waited_s / max(turns, 1.0)
        if mean_ms > starved_ms:
            why = f"{name} ran {ran_s:.1f} s and waited {waited_s:.1f} s for a processor, {mean_ms:.2f} ms each time"
            return Verdict("starved", f"{why}: above starved_ms = {starved_ms:g}", processors)
    return Verdict("done", "", processors)


def first_fault(ends: dict[str, dict[str, Any]]) -> tuple[str, str] | None:
    """Which client keeps a run from being used, and what is the matter with it; ``None`` when all ended well.

    One that failed comes before those that still stream because nobody waits for them any more.

    Args:
        ends: of every client by name, its state as its machine tells it.
    """
    for name, told in ends.items():
        if has_failed(told):
            if told["state"] != "exited":
                return name, f"is {told['state']}"
            status = told["exit"]["status"]
            return name, f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    late = next((name for name, told in ends.items() if told["state"] != "exited"), None)
    return (late, f"had not ended {_SETTLE_S:g} s after the run") if late else None


class Stage:
    """The machines during one attempt; on leaving, everything it started there has ended and its files are gone."""

    def __init__(self, hosts: Hosts, sweep: Sweep, run: Run, name: str, watch: Callable[[str], None]) -> None:
        self._sweep = sweep
        self._run = run
        self._name = name
        self._watch = watch
        self._server = Machine(hosts.server, hosts)
        self._clients = {host.label: Machine(host, hosts) for host in hosts.clients}
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._used: dict[Machine, float] = {}
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        dealt = share(self._run.devices, list(self._clients))
        try:
            for machine in (self._server, *(self._clients[label] for label, mine in dealt.items() if mine)):
                self._resources.callback(machine.close)
                machine.connect()
                self._used[machine] = time.monotonic()
                machine.agent("renew", str(self._directory(machine)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *fault: object) -> None:
        with deferred():
            try:
                self._stop()
                for machine in self._used:
                    with contextlib.suppress(RemoteError):
                        machine.agent("remove", str(self._directory(machine)))
            finally:
                self._resources.close()

    def perform(self) -> Verdict:
        """Start server, links and clients, wait for the clients to end, and judge.

        Raises:
            RemoteError: something did not start, or a machine is gone.
        """
        address = self._start_server()
        dealt = {label: devices for label, devices in share(self._run.devices, list(self._clients)).items() if devices}
        links = {label: self._start_links(self._clients[label], devices, address) for label, devices in dealt.items()}
        clients = {
            label: self._start_clients(self._clients[label], devices, links[label]) for label, devices in dealt.items()
        }
        for label, jobs in clients.items():
            self._ready(self._clients[label], jobs, "a client")
        self._go()
        ends = self._await_clients(clients)
        if fault := first_fault(ends):
            name, how = fault
            return Verdict("failed", f"{name} {how}: {self._jobs[name].tail()}")
        for name in ends:
            self._running.pop(name)
        stopped = self._stop()
        for name, told in stopped.items():
            if told["state"] != "exited" or not told["exit"]["stopped"]:
                return Verdict("failed", f"{name} ended before the run did: {self._jobs[name].tail()}")
        return judge({name: told["exit"] for name, told in (ends | stopped).items()}, self._sweep.starved_ms)

    def collect(self, into: Path) -> None:
        """Fetch the logs of every machine into ``into``.

        Raises:
            RemoteError: a machine is gone.
        """
        self._stop()
        for machine in self._used:
            machine.fetch(self._directory(machine), into)

    def _directory(self, machine: Machine) -> PurePosixPath:
        return machine.work / self._name

    def _launch(
        self, machine: Machine, name: str, out: str, module: str, arguments: Sequence[str], *, hold: bool = False
    ) -> Job:
        directory = self._directory(machine)
        job = self._jobs[name] = self._running[name] = machine.job(directory / "jobs" / name)
        job.start(
            module,
            [*arguments, "--out", str(directory / out)],
            lease=directory / LEASE,
            lease_s=LEASE_S,
            hold=hold,
        )
        return job

    def _ready(self, machine: Machine, jobs: Sequence[Job], what: str) -> list[dict[str, Any]]:
        told = machine.wait(jobs, "ready", READY_TIMEOUT_S, lambda: self._tick(f"waiting for {what}"))
        for job, one in zip(jobs, told, strict=True):
            if one["state"] != "ready":
                raise RemoteError(f"{what} on {machine.host.label} is {one['state']}, not ready: {job.tail()}")
        return [one["ready"] for one in told]

    def _start_server(self) -> str:
        self._tick("starting the server")
        sweep, machine = self._sweep, self._server
        arguments = [
            *("--zoo", sweep.zoo, "--devices", str(sweep.devices), "--runtime", sweep.runtime),
            *(("--kind", sweep.kind) if sweep.kind else ()),
            *("--policy", self._run.policy, "--seed", str(self._run.seed)),
            *("--host", machine.host.host, "--port", "0"),
        ]
        job = self._launch(machine, "server", "server", "server", arguments)
        (ready,) = self._ready(machine, [job], "the server")
        return f"{machine.host.host}:{ready['port']}"

    def _start_links(self, machine: Machine, devices: Sequence[Device], address: str) -> dict[int, str]:
        """Address that each device connects to: its shaped link, or the server itself."""
        shaping = self._sweep.shaping
        if shaping == "none":
            return {device.client_id: address for device in devices}
        self._tick("starting the links")
        arguments = [shaping, "--target", address, "--seed", str(self._run.seed)]
        if shaping == "tc":
            arguments += ["--interface", machine.host.interface]
        for option, value in self._sweep.link_options.items():
            arguments += [f"--{option.replace('_', '-')}", f"{value}"]
        for device in devices:
            arguments += ["--link", f"client-{device.client_id}={self._trace_of(device)}"]
        name = f"network-{machine.host.label}"
        job = self._launch(machine, name, f"network/{machine.host.label}", "network_shaping", arguments, hold=True)
        (ready,) = self._ready(machine, [job], "the links")
        links = {device.client_id: ready["links"][f"client-{device.client_id}"] for device in devices}
        return {client_id: f"{link['host']}:{link['port']}" for client_id, link in links.items()}

    def _trace_of(self, device: Device) -> str:
        """Jellyfish's habit: each device begins at a random place of the trace, unless ``TRACE@SECONDS`` says where.

        The seed is the device's, so that its place is the same whichever machine emulates it.
        """
        return at_random(self._run.trace, self._run.seed + device.client_id)

    def _start_clients(self, machine: Machine, devices: Sequence[Device], addresses: dict[int, str]) -> list[Job]:
        self._tick("starting the clients")
        sweep, jobs = self._sweep, []
        for device in devices:
            arguments = [
                *("--server", addresses[device.client_id], "--client-id", str(device.client_id)),
                *("--source", source_of(self._run, device), "--seed", str(self._run.seed + device.client_id)),
                *("--slo-ms", f"{device.slo_ms:g}", "--fps", f"{device.fps:g}"),
                *("--register-timeout-s", f"{_REGISTER_S:g}"),
                *("--seconds", f"{sweep.warmup_s + sweep.seconds:g}"),
                *(("--pre-encoded", str(sweep.pre_encoded)) if sweep.pre_encoded else ()),
                *(("--padded",) if sweep.padded else ()),
            ]
            name, out = f"client-{device.client_id}", f"client/host_{device.client_id}"
            jobs.append(self._launch(machine, name, out, "client", arguments, hold=True))
        return jobs

    def _go(self) -> None:
        """Let the links' traces, then the clients begin, machine by machine; from here on processor time is counted."""
        by_machine: dict[Machine, list[Job]] = {machine: [] for machine in self._used}
        for job in self._jobs.values():
            by_machine[job.machine].append(job)
        for machine, jobs in by_machine.items():
            machine.agent("go", *(str(job.directory) for job in jobs))

    def _await_clients(self, clients: dict[str, list[Job]]) -> dict[str, dict[str, Any]]:
        """The clients' ends, or their states when one of them has failed or the time is over."""
        seconds = self._sweep.warmup_s + self._sweep.seconds
        started = time.monotonic()
        ends: dict[str, dict[str, Any]] = {}
        for label, jobs in clients.items():
            left_s = max(1.0, started + seconds + _SETTLE_S - time.monotonic())
            told = self._clients[label].wait(jobs, "exited", left_s, lambda: self._tick("streaming"))
            ends.update({job.directory.name: one for job, one in zip(jobs, told, strict=True)})
            if any(has_failed(one) for one in told):
                break
        return ends

    def _tick(self, what: str) -> None:
        self._watch(what)
        self._renew()

    def _renew(self) -> None:
        """Touch the lease on every machine; one that cannot be reached now is tried again later."""
        for machine, renewed in self._used.items():
            if time.monotonic() - renewed > _RENEW_S:
                with contextlib.suppress(RemoteError):
                    machine.agent("renew", str(self._directory(machine)), repeat=False)
                    self._used[machine] = time.monotonic()

    def _stop(self) -> dict[str, dict[str, Any]]:
        """Stop what still runs, clients first, and how it ended; a machine that is gone does not keep the others up."""
        ends: dict[str, dict[str, Any]] = {}
        for machine in reversed(self._used):
            jobs = {name: job for name, job in reversed(self._running.items()) if job.machine is machine}
            if jobs:
                with contextlib.suppress(RemoteError):
                    ends.update(zip(jobs, machine.stop(list(jobs.values())), strict=True))
        for name in ends:
            self._running.pop(name)
        return ends


def source_of(run: Run, device: Device) -> str:
    """What a device sees: in the synthetic scene every device has a street of its own."""
    return f"synthetic:{run.seed + device.client_id}" if run.source == "synthetic" else run.source


def clean_interface(machine: Machine) -> None:
    """Remove what a shaper that was killed left on a machine's interface."""
    machine.run(machine.python("network_shaping", "clean", "--interface", machine.host.interface))
