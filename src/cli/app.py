"""One table of commands; each is imported only when it is asked for, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from moonjelly import command_line
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
    with silently_interruptible():
        app = importlib.import_module(command.module).app
    return command_line.run(app, f"moonjelly {command.name}", words[1:])
