"""One table of commands; each is imported only when it is asked for, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from typer import Abort, TyperException

from moonjelly.errors import MoonjellyError
from moonjelly.interrupts import silently_interruptible
from moonjelly.version import __version__


@dataclass(frozen=True)
class Command:
    """A command and the module whose typer ``app`` runs it."""

    name: str
    module: str
    help: str


COMMANDS = (
    Command("demo", "cli.demo", "the main job on this machine: server, clients over a shaped network, report"),
    Command("test", "cli.testing", "the test suite as CI runs it; --full for the long tier"),
    Command("serve", "server.app", "the server"),
    Command("client", "client.app", "a client, or a fleet of them"),
    Command("profile", "server.profiler.app", "measure every (variant, batch) on this machine"),
    Command("zoo", "cli.zoo", "train, list, show, verify and record model zoos"),
    Command("simulate", "cli.simulate", "planning against the optimum, its time, whole workloads, replay"),
    Command("experiment", "cli.experiment", "sweeps over SSH: check machines, run, collect, report"),
    Command("testbed", "cli.testbed", "three machines as network namespaces, with real sshd and tc"),
    Command("shape", "network_shaping.app", "shape a network link by a trace"),
    Command("plot", "plots.app", "figures from logs"),
)


def usage() -> str:
    """The text of ``moonjelly --help``."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [
        f"moonjelly {__version__}: deadline-aware DNN inference serving for the mobile edge",
        "",
        "usage: moonjelly COMMAND [OPTIONS]      (moonjelly COMMAND --help says the rest)",
        "",
        *(f"  {command.name:<{width}}  {command.help}" for command in COMMANDS),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. A user's error is one line, without a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        with contextlib.suppress(BrokenPipeError):  # of `| head`
            print(usage(), flush=True)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    command = next((command for command in COMMANDS if command.name == words[0]), None)
    if command is None:
        print(f"moonjelly: no command '{words[0]}'; known: {', '.join(c.name for c in COMMANDS)}", file=sys.stderr)
        return 2
    try:
        with silently_interruptible():
            app = importlib.import_module(command.module).app
        status = app(args=words[1:], prog_name=f"moonjelly {command.name}", standalone_mode=False)
    except MoonjellyError as fault:
        print(f"moonjelly {command.name}: {fault}", file=sys.stderr)
        return fault.exit_code
    except TyperException as fault:
        _explain(f"moonjelly {command.name}", fault)
        return fault.exit_code
    except OSError as fault:
        if fault.filename is None:  # no path of the user's
            raise
        print(
            f"moonjelly {command.name}: {fault.filename}: {fault.strerror}; check or change the path", file=sys.stderr
        )
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (KeyboardInterrupt, Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # taken for Ctrl-D at a prompt, and nothing here prompts
            raise stop.__cause__ from None
        return 130
    return status if isinstance(status, int) else 0


def _explain(command: str, fault: TyperException) -> None:
    """A wrong option or value in one line; a group without a command has printed its help already."""
    context = getattr(fault, "ctx", None)
    path = context.command_path if context is not None else command
    if fault.format_message():
        print(f"{path}: {fault.format_message().rstrip('.')}; see {path} --help", file=sys.stderr)
