"""Server, manager and client machines as network namespaces on this host, with real sshd and tc. Needs root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.terminal import make_console
from cli.testbed import machines
from cli.testbed.layout import Layout
from moonjelly.interrupts import interruptible

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Name = Annotated[str, typer.Option(help="several testbeds can be up side by side under different names")]
HOSTS_VARIABLE = "MOONJELLY_HOSTS"
DEFAULT_DEMO_OUT = Path("out") / "testbed-demo"


@app.command()
def up(
    name: Name = "default",
    clients: Annotated[int, typer.Option(help="client machines")] = 1,
) -> None:
    """Make server, manager and client machines: namespaces, addresses, sshd, keys. Needs root."""
    layout = Layout(name, clients)
    with interruptible():
        hosts = machines.up(layout)
    table = Table(title=f"testbed '{name}' is up", title_justify="left")
    for column in ("machine", "namespace", "address", "work directory"):
        table.add_column(column, overflow="fold")
    for machine in layout.machines:
        table.add_row(machine.role, machine.namespace, machine.address, str(machine.work))
    console = make_console()
    console.print(table)
    console.print(f"hosts file: {hosts}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    name: Name = "default",
    machine: Annotated[str, typer.Option(help="where: manager, server, client0, …")] = "manager",
) -> None:
    """Run a command on one of the machines; MOONJELLY_HOSTS names the hosts file. Example: run ./run.sh experiment …"""
    layout = Layout(name, clients=_clients_of(name))
    place = next((one for one in layout.machines if one.role == machine), None)
    if place is None:
        known = ", ".join(one.role for one in layout.machines)
        raise machines.TestbedError(f"no machine '{machine}' in testbed '{name}'; there are {known}")
    if not context.args:
        raise machines.TestbedError("nothing to run: name a command, e.g. 'testbed run ip addr'")
    environment = {**os.environ, HOSTS_VARIABLE: str(machines.hosts_file(layout))}
    command = machines.command_in(place, context.args)
    # In our place, so that signals are its own to act on.
    os.execvpe(command[0], command, environment)  # noqa: S606 - there is no shell wanted


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="length of each run")] = 20.0,
    clients: Annotated[str, typer.Option(help="numbers of devices")] = "1,2",
    policies: Annotated[str, typer.Option(help="planning policies")] = "multiset,sa-dp",
    shaping: Annotated[str, typer.Option(help="tc or relay")] = "tc",
    starved_ms: Annotated[float | None, typer.Option(help="see 'experiment run --help'")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the first repetition")] = 0,
    name: Name = "demo",
    out: Annotated[Path, typer.Option(help="where results, figures and the report go")] = DEFAULT_DEMO_OUT,
) -> None:
    """A small sweep from end to end: machines up, runs over SSH, figures 6 to 9, the report, machines down."""
    from cli.testbed.demo import run_demo  # drawing takes a while to import; the other commands do without

    words = ["--clients", clients, "--policies", policies, "--seconds", f"{seconds:g}", "--shaping", shaping]
    words += ["--seed", str(seed)]
    words += [] if starved_ms is None else ["--starved-ms", f"{starved_ms:g}"]
    raise typer.Exit(run_demo(Layout(name, clients=2), words, out))


@app.command()
def down(name: Name = "default") -> None:
    """Stop everything that runs in the testbed and remove it; works also after a kill."""
    removed = machines.down(name)
    print(f"removed {', '.join(removed)}" if removed else f"there was no testbed '{name}'")


def _clients_of(name: str) -> int:
    directory: Path = Layout(name).directory
    found = len(list(directory.glob("client*")))
    if not found:
        raise machines.TestbedError(f"testbed '{name}' is not up; 'moonjelly testbed up' makes it")
    return found
