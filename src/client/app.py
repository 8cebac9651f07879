"""``moonjelly client``: a client, or a fleet of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client import process
from client.config import ENVIRONMENT_PREFIX, ClientOptions
from client.fleet import Fleet
from client.process import Descriptors
from client.progress import Show
from client.sources import BufferStrategy
from moonjelly import command_line
from moonjelly.config import load
from moonjelly.sdk.sync import new_event_loop

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_CONNECTION = "Connection"
_MEASUREMENTS = "For measurements"
_PARENT = "For a program that starts clients: descriptors"
_STRATEGIES = ", ".join(strategy.value for strategy in BufferStrategy)


def _told(text: str, name: str) -> str:
    """The help of an option with the default of its field: the option has none, so that file and environment count."""
    value = ClientOptions.model_fields[name].default
    shown = ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else value
    return f"{text}; default: {getattr(shown, 'value', shown)}"


@app.command(help="Stream a camera, a video or the synthetic scene to a server, with deadlines.")
def client(  # noqa: D103 - typer shows the help above
    server: Annotated[str | None, typer.Option(help=_told("HOST:PORT", "server"))] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help=_told(
                "video file, folder or .txt list of pictures, rtsp://... or /dev/videoN, synthetic[:SEED]", "source"
            ),
        ),
    ] = None,
    clients: Annotated[int | None, typer.Option(help=_told("how many, each its own process", "clients"))] = None,
    slo_ms: Annotated[
        str | None, typer.Option(help=_told("deadline, capture to result; several: 75,100", "slo_ms"))
    ] = None,
    fps: Annotated[str | None, typer.Option(help="nominal rate; several: 15,24; default: the source's")] = None,
    seconds: Annotated[float | None, typer.Option(help="how long; default: until stopped")] = None,
    loop: Annotated[bool | None, typer.Option(help="show a recording again when it ends; default: loop")] = None,
    group: Annotated[str | None, typer.Option(help="model group")] = None,
    name: Annotated[str | None, typer.Option(help="shown by the server")] = None,
    client_id: Annotated[int | None, typer.Option(help="of the first client, in logs")] = None,
    seed: Annotated[int | None, typer.Option(help=_told("of the synthetic scene and of the phase", "seed"))] = None,
    out: Annotated[Path | None, typer.Option(help=_told("where logs go", "out"))] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with these options")] = None,
    buffer: Annotated[str | None, typer.Option(help=_told(f"for live sources: {_STRATEGIES}", "buffer"))] = None,
    scene_seconds: Annotated[
        float | None,
        typer.Option(
            help="draw so much of the synthetic scene beforehand and show it again and again; "
            "default: without end, drawn while streaming",
            rich_help_panel=_MEASUREMENTS,
        ),
    ] = None,
    pre_encoded: Annotated[
        int | None,
        typer.Option(help="use this many frames of a recording, each encoded once", rich_help_panel=_MEASUREMENTS),
    ] = None,
    padded: Annotated[
        bool | None,
        typer.Option(help="pad every frame to Jellyfish's table of worst-case sizes", rich_help_panel=_MEASUREMENTS),
    ] = None,
    token: Annotated[str | None, typer.Option(help="the server's access token", rich_help_panel=_CONNECTION)] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="PEM file, for TLS", rich_help_panel=_CONNECTION)
    ] = None,
    register_timeout_s: Annotated[
        float | None,
        typer.Option(help=_told("for the first registration", "register_timeout_s"), rich_help_panel=_CONNECTION),
    ] = None,
    reconnect_s: Annotated[
        float | None,
        typer.Option(
            help=_told("how long a lost server is tried again", "reconnect_s"),
            rich_help_panel=_CONNECTION,
        ),
    ] = None,
    congestion_control: Annotated[
        str | None,
        typer.Option(
            help="TCP's, for this connection: reno, cubic, ...; default: the host's", rich_help_panel=_CONNECTION
        ),
    ] = None,
    ready_fd: Annotated[
        int | None, typer.Option(help="takes a JSON line when registered", rich_help_panel=_PARENT)
    ] = None,
    start_fd: Annotated[
        int | None, typer.Option(help="the first frame waits for a line on it", rich_help_panel=_PARENT)
    ] = None,
    status_fd: Annotated[int | None, typer.Option(help="takes a JSON line per second", rich_help_panel=_PARENT)] = None,
    lifeline_fd: Annotated[int | None, typer.Option(help="stop when it ends", rich_help_panel=_PARENT)] = None,
) -> None:
    given = {key: value for key, value in locals().items() if key in ClientOptions.model_fields}
    options = load(ClientOptions, file=config, environment=os.environ, prefix=ENVIRONMENT_PREFIX, overrides=given)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    descriptors = Descriptors(ready_fd, start_fd, status_fd, lifeline_fd)
    start = _run_fleet if options.clients > 1 else process.run
    console = Console(stderr=True)
    if not console.is_terminal:  # nobody watches: spare the thread that would redraw a dozen times a second
        raise typer.Exit(start(options, descriptors, lambda _: None))
    with console.status(f"connecting to {options.server}") as status:
        result = start(options, descriptors, status.update)
    raise typer.Exit(result)


def _run_fleet(options: ClientOptions, descriptors: Descriptors, show: Show) -> int:
    loop = new_event_loop()
    try:
        return loop.run_until_complete(Fleet(options, descriptors, show).run())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; a user's error is one line on standard error and its exit status."""
    return command_line.run(app, "moonjelly client", arguments)
