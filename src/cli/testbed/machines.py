"""Makes and removes a testbed's namespaces, cables and sshd processes."""

from __future__ import annotations

import getpass
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli.testbed.layout import PREFIX, Layout, Machine, hosts_toml, is_namespace_of, sshd_config
from moonjelly.errors import MoonjellyError
from moonjelly.interrupts import deferred
from network_shaping import ownership

_ROOT = Path(__file__).resolve().parents[3]
_SSHD_READY_S = 10.0
_NAMESPACES = Path("/run/netns")
_RESOLVERS = Path("/etc/netns")
_CONGESTION_SETTING = "/proc/sys/net/ipv4/tcp_congestion_control"
_CONGESTION_CONTROL = "reno"
"""Of TCP on every machine, whatever the host's default is.

Reno never paces, and every kernel lets a namespace choose it. BBR, the default of some hosts, now and then takes the
loopback between a client and the port of its shaped link for a slow network, and holds a frame back for 0.1 s.
"""


class TestbedError(MoonjellyError):
    """The testbed cannot be made, used or removed."""

    __test__ = False  # not a test class, whatever its name begins with


def problems() -> list[str]:
    """What stands against a testbed on this host, each with its remedy; empty when nothing does."""
    found = []
    if sys.platform != "linux":
        return ["a testbed needs Linux; this is " + sys.platform]
    for program, package in (("ip", "iproute2"), ("sshd", "openssh-server"), ("ssh-keygen", "openssh-client")):
        if _program(program) is None:
            found.append(f"'{program}' is missing: apt install {package}")
    if os.geteuid() != 0 and not _may("CAP_NET_ADMIN", "CAP_SYS_ADMIN"):
        found.append("making network namespaces needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN: use sudo")
    if not found:
        probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            found.append(f"this kernel or container does not allow network namespaces: {probe.stderr.strip()}")
    return found


def up(layout: Layout) -> Path:
    """Make the testbed and return the path of its hosts file.

    Raises:
        TestbedError: it exists already, or the host does not allow it; nothing is left behind then.
    """
    if found := problems():
        raise TestbedError("no testbed here: " + "; ".join(found))
    if _namespaces_of(layout.name) or any(place.exists() for place in _directories(layout)):
        remedy = f"'moonjelly testbed down --name {layout.name}' removes it"
        raise TestbedError(f"testbed '{layout.name}' is up already, or was left half made; {remedy}")
    try:
        return _make(layout)
    except BaseException:
        down(layout.name)
        raise


def down(name: str) -> list[str]:
    """Remove every trace of a testbed, also of one whose maker was killed; returns what was removed."""
    layout = Layout(name)
    removed = []
    with deferred():
        for namespace in _namespaces_of(name):
            _stop_processes(namespace)
            ownership.forget((_NAMESPACES / namespace).stat().st_ino)
            _ip("netns", "delete", namespace)
            removed.append(namespace)
        # After the namespaces, since one that was killed in between left files without a namespace.
        for resolver in _RESOLVERS.glob(f"{PREFIX}-{name}-*"):
            if is_namespace_of(name, resolver.name):
                shutil.rmtree(resolver)
                removed += [] if resolver.name in removed else [str(resolver)]
        for place in _directories(layout):
            if place.exists():
                shutil.rmtree(place)
                removed.append(str(place))
    return removed


def command_in(machine: Machine, command: Sequence[str]) -> list[str]:
    """``command`` as it is run inside a machine, with the machine's own resolver."""
    return ["ip", "netns", "exec", machine.namespace, *command]


def hosts_file(layout: Layout) -> Path:
    """Where :func:`up` wrote the hosts file."""
    return layout.directory / "hosts.toml"


def _directories(layout: Layout) -> tuple[Path, Path]:
    return layout.work_directory, layout.directory


def _make(layout: Layout) -> Path:
    layout.work_directory.mkdir(mode=0o700)
    for machine in layout.machines:
        machine.work.mkdir()
        machine.directory.mkdir(parents=True)
        machine.directory.chmod(0o700)
        resolver = _RESOLVERS / machine.namespace
        resolver.mkdir(parents=True, exist_ok=True)
        (resolver / "resolv.conf").write_text("# no name servers in the testbed\n", encoding="utf-8")
        (resolver / "hosts").write_text(_hosts_text(layout), encoding="utf-8")
        _ip("netns", "add", machine.namespace)
        _ip("-n", machine.namespace, "link", "set", "lo", "up")
        _run(command_in(machine, ["sh", "-c", f"echo {_CONGESTION_CONTROL} > {_CONGESTION_SETTING}"]))
    _cable(layout)
    _keys(layout)
    for machine in layout.machines:
        if machine.has_sshd:
            _start_sshd(machine)
    path = hosts_file(layout)
    python = str(_ROOT / ".venv" / "bin" / "python")
    path.write_text(hosts_toml(layout, getpass.getuser(), _ROOT, python), encoding="utf-8")
    return path


def _cable(layout: Layout) -> None:
    server = layout.server
    _ip("-n", server.namespace, "link", "add", "switch", "type", "bridge")
    _ip("-n", server.namespace, "addr", "add", f"{server.address}/24", "dev", "switch")
    _ip("-n", server.namespace, "link", "set", "switch", "up")
    for machine in layout.machines[1:]:
        port = layout.switch_port(machine)
        _ip(
            *("-n", machine.namespace, "link", "add", machine.interface, "type", "veth"),
            *("peer", "name", port, "netns", server.namespace),
        )
        _ip("-n", server.namespace, "link", "set", port, "master", "switch", "up")
        _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", machine.interface)
        _ip("-n", machine.namespace, "link", "set", machine.interface, "up")


def _keys(layout: Layout) -> None:
    manager = layout.manager.directory
    _keygen(manager / "id_ed25519", f"moonjelly testbed {layout.name}")
    public = (manager / "id_ed25519.pub").read_text(encoding="utf-8")
    known = []
    for machine in layout.machines:
        if not machine.has_sshd:
            continue
        _keygen(machine.directory / "host_key", machine.role)
        kind, key, *_ = (machine.directory / "host_key.pub").read_text(encoding="utf-8").split()
        known.append(f"{machine.address} {kind} {key}\n")
        (machine.directory / "authorized_keys").write_text(public, encoding="utf-8")
        (machine.directory / "sshd_config").write_text(sshd_config(machine), encoding="utf-8")
    (manager / "known_hosts").write_text("".join(known), encoding="utf-8")


def _keygen(path: Path, comment: str) -> None:
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _start_sshd(machine: Machine) -> None:
    Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    log = machine.directory / "sshd.log"
    sshd = _program("sshd")
    if sshd is None:
        raise TestbedError("'sshd' is missing: apt install openssh-server")
    # Without -D it becomes a daemon once it listens, so its return is its acknowledgement.
    config = str(machine.directory / "sshd_config")
    done = subprocess.run(
        command_in(machine, [sshd, "-f", config, "-E", str(log)]),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SSHD_READY_S,
    )
    if done.returncode:
        said = log.read_text(encoding="utf-8") if log.exists() else done.stderr
        raise TestbedError(f"sshd of {machine.role} did not start: {said.strip()}")


def _stop_processes(namespace: str, grace_s: float = 5.0) -> None:
    """TERM, then KILL, every process of a namespace: those processes are the testbed's own by construction."""
    deadline = time.monotonic() + grace_s
    number = signal.SIGTERM
    while pids := [int(line) for line in _ip("netns", "pids", namespace).split()]:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        _wait_for_exit(pids, deadline)
        number = signal.SIGKILL


def _wait_for_exit(pids: Sequence[int], deadline: float) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            poller = select.poll()
            poller.register(handle)
            poller.poll(left_ms)
        finally:
            os.close(handle)


def _hosts_text(layout: Layout) -> str:
    lines = ["127.0.0.1 localhost", *(f"{machine.address} {machine.role}" for machine in layout.machines)]
    return "\n".join([*lines, ""])


def _namespaces_of(name: str) -> list[str]:
    listed = [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]
    return [namespace for namespace in listed if is_namespace_of(name, namespace)]


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _may(*capabilities: str) -> bool:
    numbers = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return all(effective >> numbers[one] & 1 for one in capabilities)
    return False


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: Sequence[str]) -> str:
    # In a session of its own: Ctrl-C is this program's to act on, and must not end what puts things in order.
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        raise TestbedError(f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
