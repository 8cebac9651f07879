"""Looks at every machine before an experiment and says in one table what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiment_manager.hosts import Host, Hosts
from experiment_manager.ssh import Machine, RemoteError
from moonjelly.version import __version__

MIN_FREE_GIB = 1.0
_PROBE = """
import json, os, shutil, sys, threading
def end_with_asker():
    while os.read(0, 1):  # nothing is ever said: what comes is the end of the connection
        pass
    os._exit(1)
threading.Thread(target=end_with_asker, daemon=True).start()
root, work, interface, *sources = sys.argv[1:]
if os.path.isdir(root):
    os.chdir(root)
sys.path[:0] = [root + "/src", root]
found = {"python": sys.version.split()[0], "root": os.path.isdir(root + "/src/moonjelly"), }
try:
    from moonjelly.version import __version__
    found["version"] = __version__
    import grpc, numpy, cv2
    found["packages"] = True
except ImportError as fault:
    found["packages"] = str(fault)
os.makedirs(work, exist_ok=True)
found["free_gib"] = shutil.disk_usage(work).free / 2**30
found["tc"] = shutil.which("tc", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
found["admin"] = os.geteuid() == 0
found["interface"] = (not interface) or os.path.isdir("/sys/class/net/" + interface)
try:
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as file:
        found["congestion"] = file.read().strip()
except OSError:
    found["congestion"] = "unknown"
found["absent"] = [path for path in sources if not os.path.exists(path)]
print(json.dumps(found))
"""
_SERVING_PROBE = """
import os, sys
root, zoo, kind, *policies = sys.argv[1:]
os.chdir(root)
sys.path[:0] = [root + "/src", root]
from moonjelly.errors import MoonjellyError
from moonjelly.planning.registry import create_policy
from moonjelly.repository import load_zoo
def serve(zoo):
    found = load_zoo(zoo)
    if kind:
        found.profile(kind)
for call, word in [(serve, zoo), *((create_policy, policy) for policy in policies)]:
    try:
        call(word)
    except MoonjellyError as fault:
        print(fault)
"""
_CLOCK_READINGS = 8
_PACING = "bbr"
"""Begins the names of the congestion controls that pace by what they measure: ADR 6 says what that does here."""


@dataclass(frozen=True)
class Finding:
    """What was found on one machine.

    Attributes:
        machine: its label.
        role: ``server`` or ``client``.
        facts: column to value, for the table.
        problems: each with its remedy; empty when the machine is fit.
        warnings: what it can be used with, but should not, each with its remedy.
    """

    machine: str
    role: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What an experiment needs of its machines.

    Attributes:
        shaping: ``tc``, ``relay`` or ``none``.
        traces: that the links follow.
        sources: that the devices see; those that are paths must be there.
        zoo: that the server serves; empty: not looked for.
        kind: device kind that its devices behave like; empty: the zoo's first.
        policies: that it plans with.
    """

    shaping: str = "tc"
    traces: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    zoo: str = ""
    kind: str = ""
    policies: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Sources that are files or folders."""
        return tuple(source for source in self.sources if is_file(source))


def is_file(source: str) -> bool:
    """Whether a source is a file or folder: neither live nor a scene."""
    return not ("://" in source or source.startswith(("/dev/video", "synthetic:")) or source == "synthetic")


def check_golden(sources: Sequence[str], root: Path) -> list[Finding]:
    """Check this machine for the videos that detections are compared with: as on the clients, relative to the clone.

    Args:
        sources: that the devices see.
        root: the clone here.
    """
    absent = [source for source in sources if is_file(source) and not (root / source).exists()]
    remedy = "no file {} here, where F1 is computed: copy it, or take it out of sources"
    return [Finding("this one", "manager", {}, tuple(remedy.format(root / one) for one in absent))] if absent else []


def check(hosts: Hosts, wanted: Wanted) -> list[Finding]:
    """Check SSH, versions, packages, disk and clock, what the server serves, and what clients shape and see."""
    served = Wanted("none", zoo=wanted.zoo, kind=wanted.kind, policies=wanted.policies)
    return [_check_one(hosts.server, hosts, "server", served)] + [
        _check_one(host, hosts, "client", wanted) for host in hosts.clients
    ]


def _check_one(host: Host, hosts: Hosts, role: str, wanted: Wanted) -> Finding:
    try:
        with Machine(host, hosts) as machine:
            return _check_machine(machine, host, role, wanted)
    except RemoteError as fault:
        return Finding(host.label, role, {}, (str(fault),))


def _check_machine(machine: Machine, host: Host, role: str, wanted: Wanted) -> Finding:
    places = [str(machine.root), str(machine.work), host.interface]
    status, text, errors = machine.run([machine.interpreter, "-c", _PROBE, *places, *wanted.files])
    if status:
        last = (errors or text).strip().splitlines()[-1:] or ["no output"]
        remedy = f"'{machine.interpreter}' does not run ({last[0]}); run ./run.sh --help once in {machine.root}"
        return Finding(host.label, role, {}, (remedy,))
    try:
        found = json.loads(text)
    except ValueError:
        remedy = f"a command there also prints '{text.strip().splitlines()[0]}'; make its shell start silently"
        return Finding(host.label, role, {}, (remedy,))
    offset_s, bound_s = clock_offset(machine)
    facts = {
        "python": found["python"],
        "moonjelly": found.get("version", "absent"),
        "free GiB": f"{found['free_gib']:.1f}",
        "congestion control": found["congestion"],
        "clock offset ms": f"{1000 * offset_s:+.1f} ± {1000 * bound_s:.1f}",
    }
    missing = _judge(found, host)
    problems = [*missing, *(_judge_client(found, host, wanted) if role == "client" else ())]
    if not missing:  # else what its clone says is not to be trusted
        if role == "client" and wanted.shaping != "none":
            problems += [fault for trace in wanted.traces if (fault := _trace_fault(machine, trace))]
        if role == "server" and wanted.zoo:
            problems += _serving_faults(machine, wanted)
    warnings = _warn_client(found, wanted) if role == "client" else []
    return Finding(host.label, role, facts, tuple(problems), tuple(warnings))


def clock_offset(machine: Machine) -> tuple[float, float]:
    """A machine's wall clock minus ours and a bound of its error, seconds: the narrowest of some readings.

    The remote clock was read somewhere between asking and being answered, which bounds the error.
    """
    readings = []
    with machine.dialogue(["sh", "-c", "while read -r line; do date +%s.%N; done"]) as ask:
        for _ in range(_CLOCK_READINGS):
            sent = time.time()
            text = ask("now")
            returned = time.time()
            readings.append(((returned - sent) / 2, float(text) - (sent + returned) / 2))
    bound_s, offset_s = min(readings)
    return offset_s, bound_s


def _trace_fault(machine: Machine, trace: str) -> str:
    status, text, errors = machine.run(machine.python("network_shaping", "trace", trace.partition("@")[0]))
    if not status:
        return ""
    return ((errors or text).strip().splitlines() or [f"trace '{trace}' cannot be read"])[-1]


def _serving_faults(machine: Machine, wanted: Wanted) -> list[str]:
    words = [str(machine.root), wanted.zoo, wanted.kind, *wanted.policies]
    status, text, errors = machine.run([machine.interpreter, "-c", _SERVING_PROBE, *words])
    return [*text.strip().splitlines(), *(errors.strip().splitlines()[-1:] if status else ())]


def _judge(found: dict[str, Any], host: Host) -> list[str]:
    problems = []
    if not found["root"]:
        problems.append(f"no clone in {host.root_dir}: clone moonjelly there, or set root_dir")
    elif found.get("version") != __version__:
        problems.append(f"moonjelly {found.get('version')} there, {__version__} here: update the clone")
    if found["packages"] is not True:
        problems.append(f"{found['packages']}: pip install -r requirements.txt in {host.root_dir}/.venv")
    if found["free_gib"] < MIN_FREE_GIB:
        problems.append(f"less than {MIN_FREE_GIB:g} GiB free in {host.work_dir}: free some, or set work_dir")
    return problems


def _judge_client(found: dict[str, Any], host: Host, wanted: Wanted) -> list[str]:
    problems = [f"no file {path} there: copy it, or take it out of sources" for path in found["absent"]]
    if wanted.shaping == "tc":
        if not host.interface:
            problems.append("no interface named for tc: set interface, or shaping = 'relay'")
        elif not found["interface"]:
            problems.append(f"no interface '{host.interface}' there: 'ip link' lists them")
        if not found["tc"]:
            problems.append("no 'tc' there: apt install iproute2, or set shaping = 'relay'")
        if not found["admin"]:
            problems.append(f"{host.user} may not shape: log in as root, or set shaping = 'relay'")
    return problems


def _warn_client(found: dict[str, Any], wanted: Wanted) -> list[str]:
    """What distorts figures of runs on a machine that is fit: clients reach their shaped links through a local port."""
    if wanted.shaping == "none" or not found["congestion"].startswith(_PACING):
        return []
    remedy = "sysctl -w net.ipv4.tcp_congestion_control=reno (or cubic)"
    return [f"TCP's '{found['congestion']}' there holds frames back before their shaped link: {remedy}"]
