"""Runs the demo's processes, shows them live and settles the accounts."""

from __future__ import annotations

import contextlib
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from cli.demo.live import StatusReader, table
from cli.demo.settings import ClientSetting, DemoSettings, host_directory, source_arguments
from cli.processes import Child, Children, ProcessError
from cli.terminal import make_console
from client.sources import is_live, is_scene, open_recording
from moonjelly.errors import TraceError
from moonjelly.planning import create_policy
from moonjelly.repository import load_zoo
from network_shaping.catalogue import at_random, resolve_at

if TYPE_CHECKING:
    from cli.demo.results import Results

READY_TIMEOUT_S = 300.0
_REGISTER_TIMEOUT_S = 120.0
"""A client's link may stand at a few kbit/s, and its machine may be busy."""
_CONGESTION_CONTROL = "reno"
"""Between a client and its shaped link. One that paces (BBR, some hosts' default) holds single frames back: ADR 6."""
_REFRESH_S = 0.5
_SETTLE_S = 15.0
"""How long clients may take after their last frame to collect answers and flush their logs."""


def run_demo(settings: DemoSettings) -> int:
    """Serve, stream, summarise; the exit status is 0 when the run was complete."""
    console = make_console()
    check_inputs(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    interrupted, overdue = False, []
    with Children(settings.out / "logs" / "processes") as children:
        network, clients = start_all(console, children, settings)
        try:
            for child in (network, *clients):  # one after the other: frame 0 meets second 0 of the traces
                child.begin()
            overdue = watch(console, clients, settings)
        except KeyboardInterrupt:
            interrupted = True
            console.print("interrupted: stopping, and summing up what there is")
    failed = [] if interrupted else complaints(clients, overdue)
    for fault in failed:
        console.print(f"[red]{escape(str(fault))}[/red]", soft_wrap=True)
    compared = "" if is_live(settings.source) else "computing F1 against the golden model and "
    console.print(f"{compared}writing the report …")
    from cli.demo.report import write_report  # these take a while to import: the run begins before
    from cli.demo.results import collect

    results = collect(settings, cut_short=interrupted)
    report = write_report(settings, results)
    print_summary(console, results, report)
    return 1 if failed or interrupted else 0


def check_inputs(settings: DemoSettings) -> None:
    """Open what the run will need, so that a wrong name is said before anything is started.

    Raises:
        MoonjellyError: the zoo, the source or the trace is not there or cannot be read, or the policy is unknown.
    """
    load_zoo(settings.zoo).verify()
    create_policy(settings.policy)
    trace = resolve_at(settings.trace, settings.seed)
    if not any(trace.rates_bps):
        raise TraceError(f"trace '{settings.trace}' is one long outage; no client could ever connect over it")
    if not is_live(settings.source):
        open_recording(settings.source).close()


def start_all(console: Console, children: Children, settings: DemoSettings) -> tuple[Child, list[Child]]:
    """Server, then the shaped links, then the clients; returns once every client is registered and warm.

    Returns:
        The shaped links, whose traces have not begun yet, and the clients.

    Raises:
        ProcessError: one of them did not start.
    """
    out = settings.out
    console.print(f"starting the server with zoo [bold]{escape(settings.zoo)}[/bold] …")
    server = children.start(
        "server",
        "server",
        [
            *("--zoo", settings.zoo, "--devices", "1", "--port", "0", "--policy", settings.policy),
            *("--seed", str(settings.seed), "--out", str(out / "logs" / "server")),
        ],
    )
    address = f"127.0.0.1:{server.wait_ready(READY_TIMEOUT_S)['port']}"
    wanted = settings.client_settings()
    network = children.start(
        "network",
        "network_shaping",
        ["relay", "--target", address, "--seed", str(settings.seed), "--out", str(out / "logs" / "network")]
        + [word for one in wanted for word in ("--link", f"{one.name}={at_random(settings.trace)}")],
        pipes=("start",),
    )
    links = network.wait_ready(READY_TIMEOUT_S)["links"]
    drawing = "; scenes are drawn first" if is_scene(settings.source) else ""
    console.print(f"starting {len(wanted)} client{'s' if len(wanted) > 1 else ''}{drawing} …")
    clients = [
        children.start(
            one.name,
            "client",
            client_arguments(settings, one, links[one.name]["port"]),
            pipes=("status", "start"),
        )
        for one in wanted
    ]
    for client in clients:
        client.wait_ready(READY_TIMEOUT_S)
    return network, clients


def client_arguments(settings: DemoSettings, one: ClientSetting, port: int) -> list[str]:
    """Command line of one client."""
    return [
        *("--server", f"127.0.0.1:{port}"),
        *source_arguments(settings, one),
        *("--slo-ms", f"{one.slo_ms:g}"),
        *("--fps", f"{one.fps:g}"),
        *("--seconds", f"{settings.seconds:g}"),
        *("--register-timeout-s", f"{_REGISTER_TIMEOUT_S:g}"),
        *("--congestion-control", _CONGESTION_CONTROL),
        *("--client-id", str(one.index)),
        *("--seed", str(settings.seed * 1000 + one.index)),
        *("--out", str(host_directory(settings.out, one.index))),
    ]


def watch(console: Console, clients: list[Child], settings: DemoSettings) -> list[Child]:
    """Show what the clients say until they have all ended by themselves.

    Returns:
        Those that had not when their time was over; they will have to be stopped.
    """
    reader = StatusReader(clients)
    goals = {one.name: (one.slo_ms, one.fps) for one in settings.client_settings()}
    started = time.monotonic()
    limit = started + settings.seconds + _SETTLE_S

    def title() -> str:
        passed = min(time.monotonic() - started, settings.seconds)
        return f"{escape(settings.source)} over {escape(settings.trace)}, {passed:.0f} of {settings.seconds:g} s"

    shown = Live(console=console, auto_refresh=False) if settings.live and console.is_terminal else None
    with shown or contextlib.nullcontext():
        while any(client.process.poll() is None for client in clients) and time.monotonic() < limit:
            pipes = [client.status for client in clients if client.status is not None]
            select.select(pipes, [], [], _REFRESH_S)
            reader.poll()
            if shown is not None:
                shown.update(table(title(), reader.latest, goals), refresh=True)
            time.sleep(_REFRESH_S)  # pacing of the display, nothing waits on it
    if shown is None:
        console.print(table(title(), reader.latest, goals))
    return [client for client in clients if client.process.poll() is None]


def complaints(clients: list[Child], overdue: list[Child]) -> list[ProcessError]:
    """What went wrong with clients that are over: one that had to be stopped failed, whatever its status."""
    return [
        client.complaint(
            f"had not ended {_SETTLE_S:g} s after the run and was stopped"
            if client in overdue
            else f"ended with status {client.process.returncode}"
        )
        for client in clients
        if client in overdue or client.process.returncode
    ]


def print_summary(console: Console, results: Results, report: Path) -> None:
    """The few figures a person wants, last."""
    summary = results.summary
    latency = summary["latency_ms"]
    f1 = "unknown" if summary["effective_f1"] is None else f"{summary['effective_f1']:.3f}"
    console.print(
        f"[bold]{summary['on_time']} of {summary['frames_captured']} frames on time, "
        f"{100 * summary['miss_rate']:.2f} % missed[/bold], effective F1 {f1}, "
        f"effective accuracy {summary['effective_accuracy']:.3f}",
        soft_wrap=True,
    )
    if latency["p50"] is not None:
        console.print(f"latency p50 {latency['p50']:.0f}, p99 {latency['p99']:.0f}, max {latency['max']:.0f} ms")
    console.print(f"report: {escape(str(report))}", soft_wrap=True)
