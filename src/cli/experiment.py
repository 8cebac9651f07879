"""Sweeps over SSH: check the machines, run and collect, table, report."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from cli.accounts import Participant, settle
from cli.machine import machine, versions
from cli.terminal import make_console
from client.sources import is_live
from experiment_manager.checks import Finding, Wanted, check, check_golden, is_file
from experiment_manager.client_lines import read_configurations
from experiment_manager.hosts import Hosts, read_hosts
from experiment_manager.runner import Runner
from experiment_manager.stage import Verdict, source_of
from experiment_manager.sweep import Run, Sweep, duration_s, expand, read_sweep, split_words
from experiment_manager.table import collect_table, write_table
from moonjelly.errors import ConfigError
from moonjelly.interrupts import interruptible
from moonjelly.telemetry import SCHEMA_VERSION
from plots.settings import natural, setting_label

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


def _option(panel: str, text: str, **limits: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **limits)


HostsFile = Annotated[
    Path | None, typer.Option("--hosts", help="TOML file that names the machines (default: $MOONJELLY_HOSTS)")
]
SweepFile = Annotated[Path | None, typer.Option("--sweep", help="TOML file with the matrix; options below override it")]
Out = Annotated[Path, typer.Option(help="where results are collected; an interrupted sweep resumes there")]
DEFAULT_OUT = Path("logs") / "experiment_manager"
_ROOT = Path(__file__).resolve().parents[2]
_LISTED = 24
_STARVED_ADVICE = (
    "A starved run measured a busy machine, not the system, so it does not count. The same command repeats only runs "
    "without a valid result: give it when the machine has less else to do, or with fewer clients. --starved-ms sets "
    "how long processes may wait; above its default, expect misses that are the machine's."
)
_SPEED_S = 7200.0
"""Over how long the time left is estimated: long, because a run takes minutes."""


_axis = functools.partial(_option, "Matrix: every combination is a run")
_of_run = functools.partial(_option, "Each run")
_of_server = functools.partial(_option, "Server of each run")


@app.command("check")
def check_hosts(
    hosts: HostsFile = None,
    shaping: Annotated[str, typer.Option(help="tc, relay or none")] = "tc",
    traces: Annotated[str, typer.Option(help="that should be there, separated by commas")] = "",
    sources: Annotated[str, typer.Option(help="that should be there, separated by commas")] = "",
) -> None:
    """Log in to every machine and say in one table what is wrong."""
    wanted = Wanted(shaping, split_words(traces), split_words(sources))
    findings = check(_hosts(hosts), wanted)
    _print_findings(make_console(), findings)
    raise typer.Exit(1 if any(finding.problems for finding in findings) else 0)


@app.command("run")
def run_sweep(
    hosts: HostsFile = None,
    sweep: SweepFile = None,
    out: Out = DEFAULT_OUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs and stop")] = False,
    clients: Annotated[str | None, _axis("numbers of devices, e.g. 1,2,4,8")] = None,
    slo_ms: Annotated[str | None, _axis("deadlines, e.g. 75,100,150")] = None,
    fps: Annotated[str | None, _axis("frame rates, e.g. 15,25")] = None,
    clients_cfg: Annotated[
        list[Path] | None, _axis("Jellyfish's client lines: files, or a folder, in place of the three above")
    ] = None,
    sources: Annotated[str | None, _axis("videos or 'synthetic', separated by commas")] = None,
    traces: Annotated[str | None, _axis("network traces, separated by commas")] = None,
    policies: Annotated[str | None, _axis("planning policies, separated by commas")] = None,
    repetitions: Annotated[int | None, _axis("of each combination")] = None,
    seed: Annotated[int | None, _axis("of the first repetition", min=0)] = None,
    seconds: Annotated[float | None, _of_run("length of a run")] = None,
    warmup_s: Annotated[float | None, _of_run("streamed before that, not counted")] = None,
    shaping: Annotated[str | None, _of_run("tc, relay or none")] = None,
    burst_bytes: Annotated[int | None, _of_run("that a link passes at once after a pause (tc, relay)")] = None,
    queue_bytes: Annotated[int | None, _of_run("that may wait before a link's bucket (tc)")] = None,
    latency_ms: Annotated[
        float | None, _of_run("in its place, how long a packet may wait there at the rate of the moment (tc)")
    ] = None,
    pre_encoded: Annotated[int | None, _of_run("frames per device, encoded before the run")] = None,
    padded: Annotated[bool | None, _of_run("pad frames to Jellyfish's table of worst-case sizes")] = None,
    retries: Annotated[int | None, _of_run("of a failed or starved run")] = None,
    starved_ms: Annotated[
        float | None, _of_run("mean wait for a processor above which a run is starved: repeated, never counted")
    ] = None,
    zoo: Annotated[str | None, _of_server("model zoo")] = None,
    devices: Annotated[int | None, _of_server("executors")] = None,
    runtime: Annotated[str | None, _of_server("auto, torch, onnx or simulated")] = None,
    kind: Annotated[str | None, _of_server("device kind that simulated devices behave like")] = None,
) -> None:
    """Run every combination of the matrix that has no valid result yet; Ctrl-C stops every remote process."""
    matrix = read_sweep(sweep, {key: value for key, value in locals().items() if key in Sweep.model_fields})
    console = make_console()
    if dry_run and not clients_cfg:
        _announce(console, expand(matrix), matrix)
        return
    machines = _hosts(hosts)
    machines, fleets = read_configurations(clients_cfg, machines) if clients_cfg else (machines, None)
    runs = expand(matrix, fleets)
    _announce(console, runs, matrix)
    if dry_run:
        return
    with interruptible():
        try:
            if not _are_fit(console, machines, matrix):
                raise typer.Exit(1)
            failed = _perform(console, machines, matrix, runs, out)
        except KeyboardInterrupt:
            if out.exists():
                write_table(out)
            console.print(
                "interrupted: what ran on the machines has ended; the same command goes on where this one stopped"
            )
            raise typer.Exit(130) from None
    _finish(console, runs, failed, out)
    raise typer.Exit(1 if failed else 0)


def _announce(console: Console, runs: Sequence[Run], matrix: Sweep) -> None:
    for run in runs if len(runs) <= _LISTED else (*runs[: _LISTED - 1], None):
        console.print("…" if run is None else run.name, soft_wrap=True)
    seconds = duration_s(matrix, len(runs))
    minutes, hours = seconds / 60.0, seconds / 3600.0
    length = f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
    console.print(f"{len(runs)} run{'s' * (len(runs) > 1)}, about {length} when none is repeated")


def _are_fit(console: Console, machines: Hosts, matrix: Sweep) -> bool:
    findings = check(
        machines, Wanted(matrix.shaping, matrix.traces, matrix.sources, matrix.zoo, matrix.kind, matrix.policies)
    )
    findings += check_golden(matrix.sources, _ROOT) if _is_scored(matrix.runtime) else []
    if any(finding.problems or finding.warnings for finding in findings):
        _print_findings(console, findings)
    return not any(finding.problems for finding in findings)


def _finish(console: Console, runs: Sequence[Run], failed: Sequence[tuple[Run, Verdict]], out: Path) -> None:
    paths = write_table(out)
    states = Counter(verdict.state for _, verdict in failed)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "runs": {"all": len(runs), "done": len(runs) - len(failed), **states},
        "not_done": {run.name: verdict.reason for run, verdict in failed},
        "versions": versions(),
        "machine": {name: str(value) for name, value in machine().items()},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print_results(console, collect_table(out), {run.name for run in runs})
    for run, verdict in failed:
        console.print(f"[red]{run.name} {verdict.state}: {escape(verdict.reason)}[/red]", soft_wrap=True)
    if states["starved"]:
        console.print(_STARVED_ADVICE, soft_wrap=True)
    console.print(f"{len(runs) - len(failed)} of {len(runs)} runs have a valid result; table: {paths[0]}")


def _print_results(console: Console, table: pd.DataFrame, names: set[str]) -> None:
    mine = table[table["run"].isin(names) & (table["client"] == "all") & (table["state"] == "done")]
    if mine.empty:
        return
    axes = ["trace", "policy", "clients", "setting"]
    same = [f"{axis} {setting_label(str(mine[axis].iloc[0]))}" for axis in axes if mine[axis].nunique() == 1]
    title = ", ".join(["means over repetitions", *same])
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    axes = [axis for axis in axes if mine[axis].nunique() > 1] or ["policy"]
    scored = ("eff. F1",) if mine["effective_f1"].notna().any() else ()  # simulated executors detect nothing
    for column in (*axes, "runs", "missed %", "eff. acc.", *scored, "p50 ms", "p99 ms"):
        shown.add_column(column, overflow="fold")
    groups = sorted(mine.groupby(axes), key=lambda one: [natural(str(word)) for word in one[0]])
    for key, part in groups[:_LISTED]:
        figures = part[["miss_rate", "effective_accuracy", "effective_f1", "latency_p50_ms", "latency_p99_ms"]].mean()
        misses, accuracy, f1, p50, p99 = (float(value) for value in figures)
        f1s = [f"{f1:.3f}"] if scored else []
        values = [f"{100 * misses:.2f}", f"{accuracy:.3f}", *f1s, f"{p50:.0f}", f"{p99:.0f}"]
        shown.add_row(*(setting_label(str(word)) for word in key), str(len(part)), *values)
    console.print(shown)
    if len(groups) > _LISTED:
        console.print(f"… and {len(groups) - _LISTED} more in the table")


@app.command("table")
def make_table(out: Out = DEFAULT_OUT) -> None:
    """Write runs.csv and runs.parquet from what has been collected."""
    if not out.exists():
        raise ConfigError(f"{out} does not exist; 'experiment run' makes it, --out names another")
    for path in write_table(out):
        print(path)


@app.command("report")
def make_report(out: Out = DEFAULT_OUT) -> None:
    """Write report.html: figures, intervals and table of the whole sweep in one file."""
    from cli.sweep_report import write_report  # drawing takes a while to import; the other commands do without

    print(write_report(out))


def _perform(
    console: Console, machines: Hosts, matrix: Sweep, runs: tuple[Run, ...], out: Path
) -> list[tuple[Run, Verdict]]:
    progress = progress_of_runs(console)
    runner = Runner(
        machines,
        matrix,
        out,
        settle=functools.partial(_settle, matrix),
        watch=lambda run, what: progress.update(task, description=f"{run.name}: {what}"),
    )
    with runner.alone(), progress:
        for left in runner.clear():
            console.print(f"removed what an interrupted run had left on {left}", soft_wrap=True)
        todo = runner.pending(runs)
        task = progress.add_task("sweep", total=len(runs), completed=len(runs) - len(todo))
        for run in todo:
            verdict = runner.run(run)
            progress.advance(task)
            if verdict.state != "done":
                console.print(f"[yellow]{run.name} {verdict.state}: {escape(verdict.reason)}[/yellow]", soft_wrap=True)
    return [(run, verdict) for run in runs if (verdict := runner.verdict(run)).state != "done"]


def progress_of_runs(console: Console) -> Progress:
    """Runs done, time taken and time left, and what is going on in what room is left: names of runs are long."""
    name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    columns = (BarColumn(16), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("left"))
    return Progress(*columns, name, console=console, speed_estimate_period=_SPEED_S, expand=True)


def _settle(matrix: Sweep, run: Run, directory: Path) -> None:
    logs = directory / "logs"
    participants = [
        Participant(
            device.client_id,
            f"client-{device.client_id}",
            device.slo_ms,
            device.fps,
            str(_ROOT / source) if is_file(source := source_of(run, device)) else source,
            logs / "client" / f"host_{device.client_id}",
        )
        for device in run.devices
    ]
    settle(
        participants,
        zoo=matrix.zoo,
        seconds=matrix.seconds,
        plans=logs / "server" / "plans.csv",
        into=directory,
        score=_is_scored(matrix.runtime) and not is_live(run.source),
        warmup_s=matrix.warmup_s,
    )


def _is_scored(runtime: str) -> bool:
    """Whether there are detections to compare with the golden model's."""
    return runtime != "simulated"


def _hosts(path: Path | None) -> Hosts:
    named = path or (Path(os.environ["MOONJELLY_HOSTS"]) if os.environ.get("MOONJELLY_HOSTS") else None)
    if named is None:
        raise ConfigError("no hosts file: name one with --hosts or MOONJELLY_HOSTS (docs/experiments.md shows one)")
    return read_hosts(named)


def _print_findings(console: Console, findings: list[Finding]) -> None:
    columns = sorted({key for finding in findings for key in finding.facts})
    table = Table(title="machines", title_justify="left")
    for column in ("machine", "role", *columns, "what is wrong"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        facts = [finding.facts.get(column, "-") for column in columns]
        warnings = [f"warning: {warning}" for warning in finding.warnings]
        verdict = escape("; ".join([*finding.problems, *warnings])) or "[green]nothing[/green]"
        table.add_row(finding.machine, finding.role, *facts, verdict)
    console.print(table)
