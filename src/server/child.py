"""Starting and being a child process of the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from moonjelly.bound import bound_command
from server.channel import Channel, pair


@dataclass(frozen=True, slots=True)
class Child:
    """A started process and the parent's end of its channel."""

    process: subprocess.Popen[bytes]
    channel: Channel

    def stop(self, patience_s: float) -> None:
        """Close the channel, which asks it to end; kill it when it has not ended in time."""
        self.channel.close()
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(module: str, pass_fds: tuple[int, ...] = (), *, bound: bool = True) -> Child:
    """``python -m module FD PARENT`` with one end of a fresh channel as descriptor ``FD``.

    A ``bound`` child is killed with its parent; another one ends when it has read all that the parent had sent.

    The parent drains on SIGTERM or Ctrl-C, which a terminal sends to the whole group; children end when their channel
    does. So they hear neither, from before their first instruction on: a mask is inherited.
    """
    ours, theirs = pair()
    arguments = [str(theirs.fileno()), str(os.getpid())]
    alone = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process = subprocess.Popen(
            bound_command(module, arguments, signal.SIGKILL) if bound else alone,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=(theirs.fileno(), *pass_fds),
            env=environment,
        )
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        theirs.close()
    return Child(process, Channel(ours))


@contextlib.contextmanager
def prompt_threads(interval_s: float = 0.0005) -> Iterator[None]:
    """Hand the interpreter over between threads this often, so that no helper thread holds up the one that answers."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval_s)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
