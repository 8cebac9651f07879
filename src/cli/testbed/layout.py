"""Names and addresses of a testbed; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from moonjelly.errors import ConfigError

PREFIX = "mj"
STATE = Path("/run/moonjelly")
WORK = Path("/var/tmp")  # noqa: S108 - what is made there is made anew, and for its owner alone
"""Logs of a sweep may be larger than /run, which is in memory on most hosts."""
_SUBNET = "10.77.0"
_MAX_CLIENTS = 100
_MAX_INTERFACE_NAME = 15


@dataclass(frozen=True)
class Machine:
    """One machine of the testbed.

    Attributes:
        role: ``server``, ``manager``, ``client0``, ``client1``, …
        namespace: name of its network namespace.
        address: IPv4 address.
        directory: its keys and sshd configuration.
        work: where experiments put their files on this machine.
    """

    role: str
    namespace: str
    address: str
    directory: Path
    work: Path

    @property
    def has_sshd(self) -> bool:
        """All but the manager, which only connects."""
        return self.role != "manager"

    @property
    def interface(self) -> str:
        """Its network interface, the one that is shaped."""
        return "eth0"


@dataclass(frozen=True)
class Layout:
    """A whole testbed: one server (which also holds the switch), one manager and some client machines."""

    name: str = "default"
    clients: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,8}", self.name):
            raise ConfigError(f"testbed name '{self.name}' must be 1 to 8 of a-z and 0-9")
        if not 1 <= self.clients <= _MAX_CLIENTS:
            raise ConfigError(f"{self.clients} client machines; 1 to {_MAX_CLIENTS} are possible")

    @property
    def directory(self) -> Path:
        """State of this testbed."""
        return STATE / f"testbed-{self.name}"

    @property
    def work_directory(self) -> Path:
        """What experiments write on its machines; on a disk."""
        return WORK / f"moonjelly-testbed-{self.name}"

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Server, manager, clients."""
        roles = ["server", "manager", *(f"client{number}" for number in range(self.clients))]
        addresses = [1, 2, *(10 + number for number in range(self.clients))]
        return tuple(
            Machine(role, self.namespace(role), f"{_SUBNET}.{last}", self.directory / role, self.work_directory / role)
            for role, last in zip(roles, addresses, strict=True)
        )

    @property
    def server(self) -> Machine:
        """The machine that serves."""
        return self.machines[0]

    @property
    def manager(self) -> Machine:
        """The machine that experiments are started from."""
        return self.machines[1]

    def namespace(self, role: str) -> str:
        """Name of a role's namespace."""
        return f"{PREFIX}-{self.name}-{role}"

    def switch_port(self, machine: Machine) -> str:
        """Name of the switch's end of a machine's cable."""
        return f"port-{machine.role}"[:_MAX_INTERFACE_NAME]


def is_namespace_of(name: str, namespace: str) -> bool:
    """Whether ``namespace`` belongs to the testbed called ``name``, whatever its number of clients was."""
    return re.fullmatch(rf"{PREFIX}-{re.escape(name)}-(server|manager|client\d+)", namespace) is not None


def sshd_config(machine: Machine) -> str:
    """Text of a machine's ``sshd_config``: keys only, own host keys, nothing of the host's own configuration."""
    directory = machine.directory
    return "\n".join(
        [
            f"ListenAddress {machine.address}",
            "Port 22",
            f"HostKey {directory / 'host_key'}",
            f"PidFile {directory / 'sshd.pid'}",
            f"AuthorizedKeysFile {directory / 'authorized_keys'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PubkeyAuthentication yes",
            "PermitRootLogin prohibit-password",
            "UseDNS no",
            "PrintMotd no",
            "AcceptEnv MOONJELLY_*",
            "Subsystem sftp internal-sftp",
            "",
        ]
    )


def hosts_toml(layout: Layout, user: str, root: Path, python: str) -> str:
    """Hosts file of the experiment manager; that of three real machines differs only in its values."""

    def host(machine: Machine) -> list[str]:
        return [
            f'name = "{machine.role}"',
            f'host = "{machine.address}"',
            "port = 22",
            f'user = "{user}"',
            f'root_dir = "{root}"',
            f'work_dir = "{machine.work}"',
            f'python = "{python}"',
            f'interface = "{machine.interface}"',
        ]

    manager = layout.manager.directory
    lines = [
        f'identity_file = "{manager / "id_ed25519"}"',
        f'known_hosts = "{manager / "known_hosts"}"',
        "",
        "[server]",
    ]
    lines += host(layout.server)
    for machine in layout.machines[2:]:
        lines += ["", "[[clients]]", *host(machine)]
    return "\n".join([*lines, ""])
