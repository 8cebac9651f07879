"""The demo's command line."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.demo.run import run_demo
from cli.demo.settings import DemoSettings, default_out

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    zoo: Annotated[str, typer.Option(help="model zoo: a name below profiles/, or a directory")] = "synthetic",
    source: Annotated[
        str,
        typer.Option(
            help="what the cameras see: video file, folder or .txt list of pictures, rtsp://... or /dev/videoN "
            "(no F1 then), synthetic[:SEED]"
        ),
    ] = "synthetic",
    trace: Annotated[
        str,
        typer.Option(
            help="uplink of each client: wifi-good, lte-city, lte-weak, subway, rail-outage, or a file, "
            "from a random place or from TRACE@SECONDS"
        ),
    ] = "wifi-good",
    clients: Annotated[int, typer.Option(help="how many; SLOs 75/100/150 ms and rates 12/15/24/29.97 fps in turn")] = 4,
    seconds: Annotated[float, typer.Option(help="how long the clients stream")] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="of trace offsets, scenes and planning")] = 0,
    out: Annotated[Path | None, typer.Option(help="new folder for logs, summary.json and report.html")] = None,
    policy: Annotated[str, typer.Option(help="planning policy")] = "multiset",
    live: Annotated[bool, typer.Option("--live/--no-live", help="show the live table")] = True,
) -> None:
    """Serve camera streams with deadlines on this machine: one server, several clients, a shaped uplink for each."""
    settings = DemoSettings(
        zoo=zoo,
        source=source,
        trace=trace,
        clients=clients,
        seconds=seconds,
        seed=seed,
        out=(out or default_out(datetime.datetime.now())).resolve(),
        live=live,
        policy=policy,
    )
    raise typer.Exit(run_demo(settings))
