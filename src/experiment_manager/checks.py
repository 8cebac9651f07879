"""Looks at every machine before an experiment and says in one table what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiment_manager.hosts import Host, Hosts
from experiment_manager.ssh import Machine, RemoteError
from moonjelly.version import __version__

MIN_FREE_GIB = 1.0
_PROBE = """
import json, os, shutil, sys, time
root, work, interface = sys.argv[1:4]
sys.path[:0] = [root + "/src", root]
found = {"python": sys.version.split()[0], "root": os.path.isdir(root + "/src/moonjelly"), "clock": time.time()}
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
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """What was found on one machine.

    Attributes:
        machine: its label.
        role: ``server`` or ``client``.
        facts: column to value, for the table.
        problems: each with its remedy; empty when the machine is fit.
    """

    machine: str
    role: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def check(hosts: Hosts, *, shaping: str) -> list[Finding]:
    """Check SSH, versions, packages, disk, clock and (for ``tc``) shaping on every machine."""
    return [
        _check_one(host, hosts, "client" if number else "server", shaping) for number, host in enumerate(hosts.machines)
    ]


def _check_one(host: Host, hosts: Hosts, role: str, shaping: str) -> Finding:
    try:
        with Machine(host, hosts) as machine:
            sent = time.time()
            status, text, errors = machine.run(
                [host.interpreter, "-c", _PROBE, str(host.root_dir), str(host.work_dir), host.interface]
            )
            returned = time.time()
    except RemoteError as fault:
        return Finding(host.label, role, {}, (str(fault),))
    if status:
        last = (errors or text).strip().splitlines()[-1:] or ["no output"]
        remedy = f"'{host.interpreter}' does not run ({last[0]}); run ./run.sh --help once in {host.root_dir}"
        return Finding(host.label, role, {}, (remedy,))
    found = json.loads(text)
    # The remote clock was read somewhere between sending and return: that interval bounds the offset's error.
    offset_ms = 1000.0 * (found["clock"] - (sent + returned) / 2)
    bound_ms = 500.0 * (returned - sent)
    facts = {
        "python": found["python"],
        "moonjelly": found.get("version", "absent"),
        "free GiB": f"{found['free_gib']:.1f}",
        "clock offset ms": f"{offset_ms:+.0f} ± {bound_ms:.0f}",
    }
    return Finding(host.label, role, facts, tuple(_judge(found, host, role, shaping)))


def _judge(found: dict[str, object], host: Host, role: str, shaping: str) -> Sequence[str]:
    problems = []
    if not found["root"]:
        problems.append(f"no clone in {host.root_dir}: clone moonjelly there, or set root_dir")
    elif found.get("version") != __version__:
        problems.append(f"moonjelly {found.get('version')} there, {__version__} here: update the clone")
    if found["packages"] is not True:
        problems.append(f"{found['packages']}: pip install -r requirements.txt in {host.root_dir}/.venv")
    if float(str(found["free_gib"])) < MIN_FREE_GIB:
        problems.append(f"less than {MIN_FREE_GIB:g} GiB free in {host.work_dir}: free some, or set work_dir")
    if role == "client" and shaping == "tc":
        if not host.interface:
            problems.append("no interface named for tc: set interface, or shaping = 'relay'")
        elif not found["interface"]:
            problems.append(f"no interface '{host.interface}' there: 'ip link' lists them")
        if not found["admin"]:
            problems.append(f"{host.user} may not shape: log in as root, or set shaping = 'relay'")
    return problems
