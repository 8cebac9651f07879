"""Which machines take part: one TOML file."""

from __future__ import annotations

import getpass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, model_validator

from moonjelly.config import Options, load

Port = Annotated[int, Field(ge=1, le=65535)]


class Host(Options):
    """One machine and how to reach it.

    Attributes:
        host: name or address, as the manager reaches it by SSH and as clients reach the server.
        port: of its sshd.
        user: to log in as.
        root_dir: the clone of moonjelly there; a relative one lies in the user's home.
        work_dir: where runs put their files there; a relative one lies in the user's home.
        python: interpreter there, with the requirements installed; a relative one lies in the clone.
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

    @model_validator(mode="after")
    def _no_duplicates(self) -> Hosts:
        labels = [client.label for client in self.clients]
        places = [(client.host, client.port) for client in self.clients]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two client machines are called '{label}'; give each a name of its own")
        for host, port in places:
            if places.count((host, port)) > 1:
                raise ValueError(f"{host}:{port} is listed twice as a client machine; remove one of them")
        return self


def read_hosts(path: Path) -> Hosts:
    """Read a hosts file.

    Raises:
        ConfigError: missing, not TOML, an unknown key or an impossible value.
    """
    return load(Hosts, file=path)
