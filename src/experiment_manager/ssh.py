"""One machine over SSH: commands, jobs that outlive the connection, and fetching files."""

from __future__ import annotations

import contextlib
import errno
import json
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, TypeVar

import paramiko

from experiment_manager.agent import has_failed
from experiment_manager.hosts import Host, Hosts
from moonjelly.errors import MoonjellyError, cause

_CONNECT_TIMEOUT_S = 10.0
_KEEPALIVE_S = 5
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to reach a machine again after its connection broke."""
_TICK_S = 2.0
_ANSWER_S = 15.0
"""How long an agent that has something to say may take to say it; then the connection counts as lost."""
_LOCAL_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
T = TypeVar("T")


class RemoteError(MoonjellyError):
    """A machine cannot be reached, or a command on it failed."""


class Machine:
    """A connection to one machine that comes back by itself when it is lost."""

    def __init__(self, host: Host, hosts: Hosts) -> None:
        self.host = host
        self._hosts = hosts
        self._client: paramiko.SSHClient | None = None
        self._agent: tuple[Any, Any, Any] | None = None
        self.root = host.root_dir
        self.work = host.work_dir

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
            RemoteError: unreachable, refused, a host key that is not known, or a private key that cannot be used;
                the text says what to do.
        """
        identity = _private_key(self._hosts.identity_file)
        client = paramiko.SSHClient()
        known = (self._hosts.known_hosts or Path.home() / ".ssh" / "known_hosts").expanduser()
        if known.exists():
            client.load_host_keys(str(known))
        client.set_missing_host_key_policy(_Refuse(self.host, known))
        try:
            client.connect(
                self.host.host,
                port=self.host.port,
                username=self.host.user,
                pkey=identity,
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
        except (paramiko.SSHException, OSError, EOFError) as fault:  # the last: it went while the keys were agreed
            client.close()
            place = f"{self.host.user}@{self.host.host}:{self.host.port} ({self.host.label})"
            raise RemoteError(f"{place} cannot be reached: {_why(fault)}") from None
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE_S)
        self._client = client
        if not (self.root.is_absolute() and self.work.is_absolute()):
            home = PurePosixPath(self.run(["pwd"])[1].strip())
            self.root, self.work = home / self.root, home / self.work

    def python(self, module: str, *arguments: str) -> list[str]:
        """Command line of a module of the clone there, run in the clone's folder."""
        path = f"PYTHONPATH={self.root}/src:{self.root}"
        return ["env", "-C", str(self.root), path, self.interpreter, "-m", module, *arguments]

    @property
    def interpreter(self) -> str:
        """Path of the interpreter there."""
        return str(self.root / self.host.python)

    def close(self) -> None:
        """Drop the connection; jobs go on. Idempotent."""
        self._agent = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self, command: Sequence[str], *, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """Exit status, output and errors of a short command. Words are quoted here, never by the caller.

        Raises:
            RemoteError: the connection broke, or there was no answer within ``timeout_s``.
        """
        client, line = self._connected(), shlex.join(command)
        try:
            _, output, errors = client.exec_command(line, timeout=timeout_s)
            text, complaint = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
            return output.channel.recv_exit_status(), text, complaint
        except (paramiko.SSHException, OSError, EOFError) as fault:
            raise self._broken(f"'{line}' broke off", fault) from None

    @contextlib.contextmanager
    def dialogue(self, command: Sequence[str], *, timeout_s: float = 10.0) -> Iterator[Callable[[str], str]]:
        """Run a command that answers line by line, and give the function that says a line and returns the answer.

        Raises:
            RemoteError: the connection broke, or there was no answer within ``timeout_s``.
        """
        client, line = self._connected(), shlex.join(command)
        try:
            said, output, _ = client.exec_command(line, timeout=timeout_s)

            def ask(words: str) -> str:
                said.write(words + "\n")
                said.flush()
                return str(output.readline()).strip()

            yield ask
            said.close()
        except (paramiko.SSHException, OSError, EOFError) as fault:
            raise self._broken(f"'{line}' broke off", fault) from None

    def job(self, directory: PurePosixPath) -> Job:
        """The job that lives in ``directory`` on this machine, started or not."""
        return Job(self, directory)

    def agent(self, *words: str, timeout_s: float = 60.0, repeat: bool = True) -> Any:
        """Ask this machine's agent, one process for the whole connection; what it answers.

        Args:
            words: its command line.
            timeout_s: for the answer.
            repeat: ask again when the connection breaks.

        Raises:
            RemoteError: the agent could not do it, or could not be reached.
        """

        def ask() -> dict[str, Any]:
            return self._ask(words, timeout_s)

        answer = _persist(ask) if repeat else ask()
        if "error" in answer:
            raise RemoteError(f"{self.host.label}: agent {words[0]} failed: {answer['error']}")
        return answer["told"]

    def _ask(self, words: Sequence[str], timeout_s: float) -> dict[str, Any]:
        client = self._connected()
        try:
            if self._agent is None:
                line = shlex.join(self.python("experiment_manager.agent", "serve"))
                self._agent = client.exec_command(line)
            said, heard, errors = self._agent
            heard.channel.settimeout(timeout_s)
            said.write(json.dumps(words) + "\n")
            said.flush()
            text = heard.readline()
            if not text:
                why = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["it ended"]
                raise EOFError(why[0])
        except (paramiko.SSHException, OSError, EOFError) as fault:
            raise self._broken(f"agent {words[0]}", fault) from None
        except BaseException:
            self.close()  # interrupted between question and answer: the next question needs a dialogue of its own
            raise
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _connected(self) -> paramiko.SSHClient:
        if self._client is None:
            self.connect()
        assert self._client is not None
        return self._client

    def _broken(self, what: str, fault: Exception) -> RemoteError:
        """Drop the connection; the error that says so."""
        self.close()
        return RemoteError(f"{self.host.label}: {what}: {str(fault) or type(fault).__name__}")

    def stop(self, jobs: Sequence[Job], grace_s: float = 10.0) -> list[dict[str, Any]]:
        """End jobs of this machine and everything they started; nothing happens to those that have ended."""
        places = [str(job.directory) for job in jobs]
        told: list[dict[str, Any]] = self.agent(
            "stop", *places, "--timeout-s", f"{grace_s:g}", timeout_s=grace_s + _ANSWER_S
        )
        return told

    def wait(
        self, jobs: Sequence[Job], wanted: str, timeout_s: float, tick: Callable[[], None] | None = None
    ) -> list[dict[str, Any]]:
        """Until all jobs are ``ready`` or have ``exited``, or one has failed; through lost connections.

        Args:
            jobs: of this machine.
            wanted: state.
            timeout_s: after which the states are returned as they are.
            tick: called every few seconds.
        """
        deadline = time.monotonic() + timeout_s
        places = [str(job.directory) for job in jobs]
        while True:
            part_s = max(0.0, min(_TICK_S, deadline - time.monotonic()))
            told: list[dict[str, Any]] = self.agent(
                *("wait", *places, "--for", wanted, "--timeout-s", f"{part_s:.2f}"), timeout_s=part_s + _ANSWER_S
            )
            if all(one["state"] in (wanted, "exited") for one in told) or any(has_failed(one) for one in told):
                return told
            if time.monotonic() >= deadline:
                return told
            if tick is not None:
                tick()

    def fetch(self, directory: PurePosixPath, into: Path) -> None:
        """Copy a directory's content here as one stream; begins again when the connection breaks.

        Raises:
            RemoteError: the machine is gone, or the directory is not there.
            OSError: the files cannot be written here.
        """
        into.mkdir(parents=True, exist_ok=True)
        _persist(lambda: self._fetch(directory, into))

    def _fetch(self, directory: PurePosixPath, into: Path) -> None:
        client, line = self._connected(), shlex.join(["tar", "-C", str(directory), "-czf", "-", "."])
        try:
            _, output, errors = client.exec_command(line, timeout=60.0)
            with tarfile.open(fileobj=output, mode="r|gz") as archive:
                archive.extractall(into, filter="data")
            if output.channel.recv_exit_status():
                raise RemoteError(f"{self.host.label}: cannot fetch {directory}: {errors.read().decode().strip()}")
        except (paramiko.SSHException, OSError, EOFError, tarfile.TarError) as fault:
            if isinstance(fault, OSError) and fault.errno in _LOCAL_FAULTS:
                raise
            raise self._broken(f"fetching {directory} broke off", fault) from None


class Job:
    """A command that runs on a machine under the agent's supervisor."""

    def __init__(self, machine: Machine, directory: PurePosixPath) -> None:
        self.machine = machine
        self.directory = directory

    def start(
        self, module: str, arguments: Sequence[str], *, lease: PurePosixPath, lease_s: float, hold: bool = False
    ) -> None:
        """Start ``python -m module arguments --ready-fd N``; with ``hold`` it begins after :meth:`go`.

        Args:
            module: to run.
            arguments: of it.
            lease: file that must be touched at least every ``lease_s``, else the job ends.
            lease_s: see ``lease``.
            hold: see above.

        Raises:
            RemoteError: it could not be started.
        """
        command = self.machine.python(module, *arguments)
        words = ["start", str(self.directory), "--ready", *(["--hold"] if hold else [])]
        words += ["--lease", str(lease), "--lease-s", f"{lease_s:g}", "--", *command]
        try:
            told = self.machine.agent(*words, timeout_s=30.0, repeat=False)
        except RemoteError:
            # The connection broke: it runs, or it was never begun, in which case it may be begun again.
            told = self.machine.agent("status", str(self.directory))
            if told["state"] == "absent":
                told = self.machine.agent(*words, timeout_s=30.0, repeat=False)
        if told["state"] in ("absent", "vanished"):
            raise RemoteError(f"{self.machine.host.label}: {module} was not started in {self.directory}")

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log."""
        return " / ".join(self.machine.agent("tail", str(self.directory), "--lines", str(lines))) or "it said nothing"


def _persist(action: Callable[[], T]) -> T:
    for pause_s in _RECONNECT_S:
        try:
            return action()
        except RemoteError:
            time.sleep(pause_s)  # back-off before the machine is tried again
    return action()


class _Refuse(paramiko.MissingHostKeyPolicy):
    def __init__(self, host: Host, known: Path) -> None:
        self._host, self._known = host, known

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise RemoteError(
            f"the host key of {self._host.label} ({key.get_name()} {key.fingerprint}) is not in {self._known}; compare "
            f"it on the machine, then add it: ssh-keyscan -p {self._host.port} {self._host.host} >> {self._known}"
        )


def _private_key(path: Path | None) -> paramiko.PKey | None:
    """The key in the hosts file's ``identity_file``; ``None`` where it has none."""
    if path is None:
        return None
    try:
        return paramiko.PKey.from_path(path.expanduser())
    except OSError as fault:
        raise RemoteError(
            f"identity_file = '{path}' cannot be read: {cause(fault)}; name your private key, or leave it out: "
            "then the SSH agent and your own keys are tried"
        ) from None
    except TypeError:  # paramiko's word for a key that asks for a passphrase
        raise RemoteError(
            f"identity_file = '{path}' is encrypted: give the key to the SSH agent (ssh-add {path}), and leave it out"
        ) from None
    except (paramiko.SSHException, ValueError):
        raise RemoteError(
            f"identity_file = '{path}' is no private key (a public one ends in .pub); name the private one, as "
            "ssh-keygen made it"
        ) from None


def _why(fault: Exception) -> str:
    """What stood against logging in, and what to do about it."""
    text = (fault.strerror if isinstance(fault, OSError) else str(fault)) or str(fault) or type(fault).__name__
    if isinstance(fault, paramiko.ssh_exception.NoValidConnectionsError | TimeoutError):
        return f"{text.removeprefix('[Errno None] ')}; is it up, and does sshd listen there?"
    if isinstance(fault, paramiko.AuthenticationException) or text == "No authentication methods available":
        return f"{text.rstrip('.')}; add your public key to its authorized_keys, or name another with identity_file"
    return text


def _known_name(host: Host) -> str:
    return host.host if host.port == 22 else f"[{host.host}]:{host.port}"
