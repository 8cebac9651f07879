"""Which machines take part: one TOML file, or Jellyfish's client lines."""

from __future__ import annotations

import getpass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field

from moonjelly.config import Options, load
from moonjelly.errors import ConfigError

Port = Annotated[int, Field(ge=1, le=65535)]


class Host(Options):
    """One machine and how to reach it.

    Attributes:
        host: name or address, as the manager reaches it by SSH and as clients reach the server.
        port: of its sshd.
        user: to log in as.
        root_dir: the clone of moonjelly there.
        work_dir: where runs put their files there.
        python: interpreter there, with the requirements installed.
        interface: network interface that is shaped (client machines).
        name: for people and paths; the address when not given.
    """

    host: str = Field(min_length=1)
    port: Port = 22
    user: str = Field(default_factory=getpass.getuser)
    root_dir: PurePosixPath = PurePosixPath("moonjelly")
    work_dir: PurePosixPath = PurePosixPath("moonjelly-runs")
    python: str = ".venv/bin/python"
    interface: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """Its name, or its address."""
        return self.name or self.host

    @property
    def interpreter(self) -> str:
        """Path of the interpreter; a relative one lies in the clone."""
        return str(self.root_dir / self.python)


class Hosts(Options):
    """All machines of an experiment.

    Attributes:
        server: serves.
        clients: emulate the devices, at least one.
        identity_file: private key; the SSH agent and the user's own keys when not given.
        known_hosts: the user's own file when not given.
    """

    server: Host
    clients: tuple[Host, ...] = Field(min_length=1)
    identity_file: Path | None = None
    known_hosts: Path | None = None

    @property
    def machines(self) -> tuple[Host, ...]:
        """Server first, then the clients."""
        return (self.server, *self.clients)


def read_hosts(path: Path) -> Hosts:
    """Read a hosts file.

    Raises:
        ConfigError: missing, not TOML, an unknown key or an impossible value.
    """
    return load(Hosts, file=path)


class ClientLine(Options):
    """One device of Jellyfish's ``clients_cfg`` templates: ``host_id host port iface user root_dir slo fps``."""

    host_id: int = Field(ge=0)
    host: str = Field(min_length=1)
    port: Port
    interface: str
    user: str
    root_dir: PurePosixPath
    slo_ms: float = Field(gt=0)
    fps: float = Field(gt=0)


def read_client_lines(text: str, origin: str = "client configuration") -> tuple[ClientLine, ...]:
    """Parse Jellyfish's client configuration; blank lines and ``#`` comments are skipped.

    Raises:
        ConfigError: names the line and what is wrong with it.
    """
    names = tuple(ClientLine.model_fields)
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", maxsplit=1)[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) != len(names):
            raise ConfigError(f"{origin} line {number} has {len(words)} fields; needed: {' '.join(names)}")
        try:
            lines.append(load(ClientLine, overrides=dict(zip(names, words, strict=True))))
        except ConfigError as fault:
            raise ConfigError(f"{origin} line {number}: {fault}") from None
    if not lines:
        raise ConfigError(f"{origin} names no client")
    return tuple(lines)
