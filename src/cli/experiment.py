"""``moonjelly experiment``: sweeps over SSH, collection, accuracy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cli.accounts import Participant, settle
from experiment_manager.checks import Finding, check
from experiment_manager.hosts import Hosts, read_hosts
from experiment_manager.runner import Runner, source_of
from experiment_manager.sweep import Run, Sweep, expand, read_sweep
from experiment_manager.table import write_table
from moonjelly.errors import ConfigError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

HostsFile = Annotated[
    Path | None, typer.Option("--hosts", help="TOML file that names the machines (default: $MOONJELLY_HOSTS)")
]
SweepFile = Annotated[Path | None, typer.Option("--sweep", help="TOML file with the matrix; options below override it")]
Out = Annotated[Path, typer.Option(help="where results are collected; an interrupted sweep resumes there")]
DEFAULT_OUT = Path("logs") / "experiment_manager"


def _numbers(text: str | None) -> list[str] | None:
    return None if text is None else [word for word in text.split(",") if word]


@app.command("check")
def check_hosts(
    hosts: HostsFile = None, shaping: Annotated[str, typer.Option(help="tc, relay or none")] = "tc"
) -> None:
    """Log in to every machine and say in one table what is wrong."""
    findings = check(_hosts(hosts), shaping=shaping)
    _print_findings(Console(), findings)
    raise typer.Exit(1 if any(finding.problems for finding in findings) else 0)


@app.command("run")
def run_sweep(
    hosts: HostsFile = None,
    sweep: SweepFile = None,
    clients: Annotated[str | None, typer.Option(help="numbers of devices, e.g. 1,2,4,8")] = None,
    slo_ms: Annotated[str | None, typer.Option(help="deadlines, e.g. 75,100,150")] = None,
    fps: Annotated[str | None, typer.Option(help="frame rates, e.g. 15,25")] = None,
    sources: Annotated[str | None, typer.Option(help="videos or 'synthetic', separated by commas")] = None,
    traces: Annotated[str | None, typer.Option(help="network traces, separated by commas")] = None,
    policies: Annotated[str | None, typer.Option(help="planning policies, separated by commas")] = None,
    repetitions: Annotated[int | None, typer.Option(help="of each combination")] = None,
    seconds: Annotated[float | None, typer.Option(help="length of a run")] = None,
    seed: Annotated[int | None, typer.Option(help="of the first repetition")] = None,
    zoo: Annotated[str | None, typer.Option(help="model zoo on the server")] = None,
    devices: Annotated[int | None, typer.Option(help="executors on the server")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, torch, onnx or simulated")] = None,
    shaping: Annotated[str | None, typer.Option(help="tc, relay or none")] = None,
    retries: Annotated[int | None, typer.Option(help="of a failed or starved run")] = None,
    out: Out = DEFAULT_OUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs and stop")] = False,
) -> None:
    """Run every combination of the matrix that has no valid result yet; Ctrl-C stops every remote process."""
    overrides: dict[str, Any] = {
        "clients": _numbers(clients), "slo_ms": _numbers(slo_ms), "fps": _numbers(fps), "sources": _numbers(sources),
        "traces": _numbers(traces), "policies": _numbers(policies), "repetitions": repetitions, "seconds": seconds,
        "seed": seed, "zoo": zoo, "devices": devices, "runtime": runtime, "shaping": shaping, "retries": retries,
    }  # fmt: skip
    matrix = read_sweep(sweep, overrides)
    runs = expand(matrix)
    console = Console()
    if dry_run:
        for run in runs:
            console.print(run.name)
        return
    machines = _hosts(hosts)
    findings = check(machines, shaping=matrix.shaping)
    if any(finding.problems for finding in findings):
        _print_findings(console, findings)
        raise typer.Exit(1)
    failed = _perform(console, machines, matrix, runs, out)
    paths = write_table(out)
    console.print(f"{len(runs) - len(failed)} of {len(runs)} runs have a valid result; table: {paths[0]}")
    for run, verdict in failed:
        console.print(f"[red]{run.name}: {verdict}[/red]")
    raise typer.Exit(1 if failed else 0)


@app.command("table")
def make_table(out: Out = DEFAULT_OUT) -> None:
    """Write runs.csv and runs.parquet from what has been collected."""
    if not out.exists():
        raise ConfigError(f"{out} does not exist; 'experiment run' makes it, --out names another")
    for path in write_table(out):
        print(path)


def _perform(
    console: Console, machines: Hosts, matrix: Sweep, runs: tuple[Run, ...], out: Path
) -> list[tuple[Run, str]]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sweep", total=len(runs))

        def watch(run: Run, what: str) -> None:
            progress.update(task, description=f"{run.name}: {what}")

        def settle_run(run: Run, directory: Path) -> dict[str, Any]:
            return _settle(machines, matrix, run, directory)

        runner = Runner(machines, matrix, out, settle_run, watch)
        todo = runner.pending(runs)
        progress.advance(task, len(runs) - len(todo))
        for run in todo:
            verdict = runner.run(run)
            progress.advance(task)
            if verdict.state != "done":
                console.print(f"[yellow]{run.name} {verdict.state}: {verdict.reason}[/yellow]")
    return [
        (run, f"{verdict.state}: {verdict.reason}") for run in runs if (verdict := runner.verdict(run)).state != "done"
    ]


def _settle(machines: Hosts, matrix: Sweep, run: Run, directory: Path) -> dict[str, Any]:
    logs = directory / "logs"
    participants = []
    for device in run.devices:
        host = machines.clients[device.client_id % len(machines.clients)]
        place = logs / host.label / f"client-{device.client_id}-logs"
        name = f"client-{device.client_id}"
        participants.append(
            Participant(device.client_id, name, device.slo_ms, device.fps, source_of(run, device), place)
        )
    plans = logs / machines.server.label / "server-logs" / "plans.csv"
    real = matrix.runtime != "simulated"
    return settle(
        participants, zoo=matrix.zoo, seconds=matrix.seconds, plans=plans, into=directory, score=real
    ).to_json()


def _hosts(path: Path | None) -> Hosts:
    named = path or (Path(os.environ["MOONJELLY_HOSTS"]) if os.environ.get("MOONJELLY_HOSTS") else None)
    if named is None:
        raise ConfigError("no hosts file: name one with --hosts or MOONJELLY_HOSTS (docs/testbed.md shows one)")
    return read_hosts(named)


def _print_findings(console: Console, findings: list[Finding]) -> None:
    columns = sorted({key for finding in findings for key in finding.facts})
    table = Table(title="machines", title_justify="left")
    for column in ("machine", "role", *columns, "what is wrong"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        facts = [finding.facts.get(column, "-") for column in columns]
        verdict = "; ".join(finding.problems) or "[green]nothing[/green]"
        table.add_row(finding.machine, finding.role, *facts, verdict)
    console.print(table)
