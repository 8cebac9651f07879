"""Jellyfish's client configurations (``clients_cfg/*.txt``): which device runs where, and its goals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator

from experiment_manager.hosts import Host, Hosts, Port
from experiment_manager.sweep import Device, Fleet, setting_of, slug
from moonjelly.config import Options, load
from moonjelly.errors import ConfigError, cause

_STEM = re.compile(r"^(?:client_cfg_)?(?:template_)?(?:\d+_)?")


class ClientLine(Options):
    """One device: ``host_id host port iface user root_dir slo fps``; the id is a number or ``host_<number>``."""

    host_id: int = Field(ge=0)
    host: str = Field(min_length=1)
    port: Port
    interface: str
    user: str
    root_dir: PurePosixPath
    slo_ms: float = Field(gt=0)
    fps: float = Field(gt=0)

    @field_validator("host_id", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return value.removeprefix("host_") if isinstance(value, str) else value


def read_client_lines(
    text: str, origin: str = "client configuration", machine: Host | None = None
) -> tuple[ClientLine, ...]:
    """Parse a client configuration; blank lines and ``#`` comments are skipped.

    Args:
        text: of the file.
        origin: its name, for errors.
        machine: what a template's words ``client_ip``, ``client_ssh_port``, ``client_network_iface``,
            ``client_username`` and ``client_root_dir`` stand for.

    Raises:
        ConfigError: names the line and what is wrong with it.
    """
    names = tuple(ClientLine.model_fields)
    lines: list[ClientLine] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = _filled(line.split("#", maxsplit=1)[0], machine).replace(",", " ").split()
        if not words:
            continue
        if len(words) != len(names):
            raise ConfigError(f"{origin} line {number} has {len(words)} fields; needed: {' '.join(names)}")
        try:
            lines.append(load(ClientLine, overrides=dict(zip(names, words, strict=True))))
        except ConfigError as fault:
            raise ConfigError(f"{origin} line {number}: {fault}") from None
        if any(one.host_id == lines[-1].host_id for one in lines[:-1]):
            raise ConfigError(f"{origin} line {number}: host id {lines[-1].host_id} is used twice")
    if not lines:
        raise ConfigError(f"{origin} names no client")
    return tuple(lines)


def read_configurations(paths: Sequence[Path], hosts: Hosts) -> tuple[Hosts, tuple[Fleet, ...]]:
    """Read client configurations; a folder stands for all ``*.txt`` in it.

    Template words stand for the hosts file's first client machine, and a line whose address and port are those of a
    machine of the hosts file runs there as the hosts file says; every other line makes a machine of its own.

    Returns:
        The machines with those of the lines as clients, and a fleet per file.

    Raises:
        ConfigError: a file is missing or faulty.
    """
    machines = {(host.host, host.port): host for host in hosts.clients}
    used: dict[tuple[str, int], Host] = {}
    found = []
    files = [file for path in paths for file in (sorted(path.glob("*.txt")) if path.is_dir() else [path])]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise ConfigError(f"client configuration {path} cannot be read: {cause(fault)}") from None
        devices = []
        for line in read_client_lines(text, str(path), hosts.clients[0]):
            host = used[line.host, line.port] = machines.setdefault((line.host, line.port), _host_of(line, hosts))
            devices.append(Device(line.host_id, line.slo_ms, line.fps, host.label))
        found.append(Fleet(_setting(path, devices), tuple(devices)))
    if not found:
        raise ConfigError(f"no client configuration in {', '.join(map(str, paths))}: files are named *.txt")
    return hosts.model_copy(update={"clients": tuple(used.values())}), tuple(found)


def _filled(line: str, machine: Host | None) -> str:
    if machine is None:
        return line
    words = {
        "client_ssh_port": str(machine.port),
        "client_network_iface": machine.interface or "-",
        "client_username": machine.user,
        "client_root_dir": str(machine.root_dir),
        "client_ip": machine.host,
    }
    for word, value in words.items():
        line = line.replace(word, value)
    return line


def _host_of(line: ClientLine, hosts: Hosts) -> Host:
    """A machine that only a line names: the rest is as on the hosts file's first client machine."""
    return hosts.clients[0].model_copy(
        update={
            "host": line.host,
            "port": line.port,
            "interface": line.interface,
            "user": line.user,
            "root_dir": line.root_dir,
            "name": f"{line.host}-{line.port}" if line.port != 22 else line.host,
        }
    )


def _setting(path: Path, devices: Sequence[Device]) -> str:
    goals = {(device.slo_ms, device.fps) for device in devices}
    if len(goals) == 1:
        return setting_of(*goals.pop())
    return slug(_STEM.sub("", path.stem)) if _STEM.sub("", path.stem) else slug(path.stem)
