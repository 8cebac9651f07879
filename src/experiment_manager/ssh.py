"""One machine over SSH: commands, jobs that outlive the connection, and fetching files."""

from __future__ import annotations

import json
import shlex
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import paramiko

from experiment_manager.hosts import Host, Hosts
from moonjelly.errors import MoonjellyError

_CONNECT_TIMEOUT_S = 10.0
_KEEPALIVE_S = 5
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to reach a machine again after its connection broke."""


class RemoteError(MoonjellyError):
    """A machine cannot be reached, or a command on it failed."""


class Machine:
    """A connection to one machine that comes back by itself when it is lost."""

    def __init__(self, host: Host, hosts: Hosts) -> None:
        self.host = host
        self._hosts = hosts
        self._client: paramiko.SSHClient | None = None

    def __enter__(self) -> Machine:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Log in.

        Raises:
            RemoteError: unreachable, refused, or a host key that is not known; the text says what to do.
        """
        client = paramiko.SSHClient()
        known = self._hosts.known_hosts or Path.home() / ".ssh" / "known_hosts"
        if known.exists():
            client.load_host_keys(str(known))
        client.set_missing_host_key_policy(_Refuse(self.host, known))
        identity = self._hosts.identity_file
        try:
            client.connect(
                self.host.host,
                port=self.host.port,
                username=self.host.user,
                key_filename=str(identity) if identity else None,
                allow_agent=identity is None,
                look_for_keys=identity is None,
                timeout=_CONNECT_TIMEOUT_S,
                auth_timeout=_CONNECT_TIMEOUT_S,
                banner_timeout=_CONNECT_TIMEOUT_S,
            )
        except paramiko.BadHostKeyException as fault:
            client.close()
            raise RemoteError(
                f"{self.host.label} shows another host key than {known} knows ({fault.key.get_name()}); if the machine "
                f"was set up anew: ssh-keygen -R '{_known_name(self.host)}' -f {known}, then add the new key"
            ) from None
        except (paramiko.SSHException, OSError) as fault:
            client.close()
            raise RemoteError(
                f"{self.host.user}@{self.host.host}:{self.host.port} ({self.host.label}) cannot be reached: {fault}"
            ) from None
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE_S)
        self._client = client

    def close(self) -> None:
        """Drop the connection; jobs go on. Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self, command: Sequence[str], *, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """Exit status, output and errors of a short command. Words are quoted here, never by the caller.

        Raises:
            RemoteError: the connection broke, or there was no answer within ``timeout_s``.
        """
        if self._client is None:
            self.connect()
        assert self._client is not None
        line = " ".join(shlex.quote(word) for word in command)
        try:
            _, output, errors = self._client.exec_command(line, timeout=timeout_s)
            text, complaint = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
            return output.channel.recv_exit_status(), text, complaint
        except (paramiko.SSHException, OSError, EOFError) as fault:
            self.close()
            raise RemoteError(f"{self.host.label}: '{line}' broke off: {fault or type(fault).__name__}") from None

    def persistent(self, command: Sequence[str], *, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """:meth:`run` that reconnects and repeats: only for commands that may run twice (status, wait, stop)."""
        for pause_s in _RECONNECT_S:
            try:
                return self.run(command, timeout_s=timeout_s)
            except RemoteError:
                time.sleep(pause_s)  # back-off before the machine is tried again
        return self.run(command, timeout_s=timeout_s)

    def job(self, directory: PurePosixPath) -> Job:
        """The job that lives in ``directory`` on this machine, started or not."""
        return Job(self, directory)

    def fetch(self, directory: PurePosixPath, into: Path) -> None:
        """Copy a directory's content here as one stream.

        Raises:
            RemoteError: the connection broke or the directory is not there.
        """
        if self._client is None:
            self.connect()
        assert self._client is not None
        into.mkdir(parents=True, exist_ok=True)
        line = f"tar -C {shlex.quote(str(directory))} -czf - ."
        try:
            _, output, errors = self._client.exec_command(line, timeout=60.0)
            with tarfile.open(fileobj=output, mode="r|gz") as archive:
                archive.extractall(into, filter="data")
            if output.channel.recv_exit_status():
                raise RemoteError(f"{self.host.label}: cannot fetch {directory}: {errors.read().decode().strip()}")
        except (paramiko.SSHException, OSError, EOFError, tarfile.TarError) as fault:
            self.close()
            raise RemoteError(f"{self.host.label}: fetching {directory} broke off: {fault}") from None


class Job:
    """A command that runs on a machine under the agent's supervisor."""

    def __init__(self, machine: Machine, directory: PurePosixPath) -> None:
        self.machine = machine
        self.directory = directory

    def start(self, module: str, arguments: Sequence[str], *, hold: bool = False) -> None:
        """Start ``python -m module arguments --ready-fd N``; with ``hold`` it begins after :meth:`go`.

        Raises:
            RemoteError: it could not be started.
        """
        python = self.machine.host.interpreter
        root = self.machine.host.root_dir
        command = ["env", f"PYTHONPATH={root}/src:{root}", python, "-m", module, *arguments]
        told = self._agent(
            *("start", "--ready", *(["--hold"] if hold else [])),
            after=("--", *command),
            call=self.machine.run,
            timeout_s=30.0,
        )
        if told["state"] in ("absent", "vanished"):
            raise RemoteError(f"{self.machine.host.label}: {module} was not started in {self.directory}")

    def wait(self, wanted: str, timeout_s: float, tick: Callable[[], None] | None = None) -> dict[str, Any]:
        """Until the job is ``ready`` or has ``exited``, through lost connections; calls ``tick`` once a second."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            told = self._agent("wait", "--for", wanted, "--timeout-s", f"{max(0.0, min(1.0, left_s)):.2f}")
            if told["state"] in (wanted, "exited", "vanished", "absent") or left_s <= 0:
                return told
            if tick is not None:
                tick()

    def go(self) -> None:
        """Let a held job begin."""
        self._agent("go")

    def stop(self, grace_s: float = 10.0) -> dict[str, Any]:
        """End it and everything it started; does nothing when it has ended."""
        return self._agent("stop", "--timeout-s", f"{grace_s:g}", timeout_s=grace_s + 30.0)

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log."""
        status, text, _ = self.machine.persistent(["tail", "-n", str(lines), str(self.directory / "log")])
        return " / ".join(text.strip().splitlines()) if status == 0 and text.strip() else "it said nothing"

    def _agent(
        self,
        verb: str,
        *options: str,
        after: Sequence[str] = (),
        call: Callable[..., tuple[int, str, str]] | None = None,
        timeout_s: float = 60.0,
    ) -> dict[str, Any]:
        host = self.machine.host
        script = str(host.root_dir / "src" / "experiment_manager" / "agent.py")
        command = [host.interpreter, script, verb, str(self.directory), *options, *after]
        status, text, errors = (call or self.machine.persistent)(command, timeout_s=timeout_s)
        if status:
            raise RemoteError(f"{host.label}: agent {verb} failed: {(errors or text).strip().splitlines()[-1:]}")
        told: dict[str, Any] = json.loads(text)
        return told


class _Refuse(paramiko.MissingHostKeyPolicy):
    def __init__(self, host: Host, known: Path) -> None:
        self._host, self._known = host, known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise RemoteError(
            f"the host key of {self._host.label} ({key.get_name()} {key.fingerprint}) is not in {self._known}; compare "
            f"it on the machine, then add it: ssh-keyscan -p {self._host.port} {self._host.host} >> {self._known}"
        )


def _known_name(host: Host) -> str:
    return host.host if host.port == 22 else f"[{host.host}]:{host.port}"
