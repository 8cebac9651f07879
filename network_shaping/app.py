"""``python -m network_shaping``: run a shaper, clean up after one, or make a trace."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from moonjelly import command_line
from moonjelly.errors import ConfigError
from moonjelly.pipe import at_end_of
from moonjelly.telemetry import CsvLog, ShapingRow, set_aside
from network_shaping import bucket, catalogue, tbf, traces
from network_shaping.queues import Match, class_of
from network_shaping.userspace import LinkSpec, UserspaceShaper

_LOG = "shaping.csv"
_START_FD = typer.Option(
    help="The traces begin with a line on this, or its end; before, a link stands at its first rate that is no outage."
)
_PARENT_CHECK_S = 0.25
_STOPPING = (signal.SIGTERM, signal.SIGINT)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run a shaper, clean up after one, or make a trace.",
)


@app.command()
def relay(
    target: Annotated[str, typer.Option("--target", "--server", help="HOST:PORT that every link leads to.")],
    link: Annotated[
        list[str] | None, typer.Option(help="NAME=TRACE[@OFFSET_S|@random[:SEED]], once per client link.")
    ] = None,
    clients: Annotated[int, typer.Option(min=0, help="As many links client-0, client-1, ... on --trace.")] = 0,
    trace: Annotated[
        str | None, typer.Option(help="Of --clients; each begins at an offset of its own unless one is given.")
    ] = None,
    downlink: Annotated[list[str] | None, typer.Option(help="NAME=TRACE, to shape the way back too.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of generated traces and random offsets.")] = 0,
    seconds: Annotated[int, typer.Option(min=1, help="Length of generated traces.")] = catalogue.DEFAULT_SECONDS,
    delay_ms: Annotated[float, typer.Option(min=0.0, help="Added in each direction.")] = 0.0,
    burst_bytes: Annotated[int, typer.Option(min=0, help="Passed at once after a pause.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    out: Annotated[Path | None, typer.Option(help="Directory for shaping.csv.")] = None,
    ready_fd: Annotated[
        int | None, typer.Option(help="Write the ready line here, and stop when the parent process ends.")
    ] = None,
    start_fd: Annotated[int | None, _START_FD] = None,
) -> None:
    """Shape without root: one local port per link, relayed to the target."""
    names = [*(link or []), *_numbered(clients, trace)]
    links = _links(names, downlink or [], seed, seconds, delay_ms, burst_bytes)
    shaping_log = _shaping_log(out) if out else None
    shaper = UserspaceShaper(_address(target), links, shaping_log, host)
    try:
        asyncio.run(_serve(shaper, ready_fd, start_fd))
    finally:
        if shaping_log is not None:
            shaping_log.close()


@app.command()
def tc(
    interface: Annotated[str, typer.Option(help="Network interface to shape (outgoing packets).")],
    link: Annotated[list[str], typer.Option(help="NAME=TRACE[@OFFSET_S|@random[:SEED]], once per client link.")],
    target: Annotated[
        str | None,
        typer.Option("--target", "--server", help="HOST:PORT: give every link a local port that leads there."),
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=sport:PORT|dport:PORT|src:ADDRESS|dst:ADDRESS: packets of a link that has no local port."
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ADDRESS: a link's packets are those to this client; run at the server, for downlinks."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of generated traces and random offsets.")] = 0,
    seconds: Annotated[int, typer.Option(min=1, help="Length of generated traces.")] = catalogue.DEFAULT_SECONDS,
    burst_bytes: Annotated[
        int, typer.Option(min=bucket.MIN_BURST_BYTES, help="Size of every bucket.")
    ] = bucket.DEFAULT_BURST_BYTES,
    queue_bytes: Annotated[
        int | None,
        typer.Option(
            min=bucket.MIN_QUEUE_BYTES,
            help=f"That may wait before every bucket; {bucket.DEFAULT_QUEUE_BYTES} where nothing is said.",
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            min=bucket.MIN_LATENCY_MS,
            help="In place of --queue-bytes: how long a packet may wait, at the rate of the moment; more is dropped.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    out: Annotated[Path | None, typer.Option(help="Directory for shaping.csv.")] = None,
    ready_fd: Annotated[
        int | None, typer.Option(help="Write the ready line here, and stop when the parent process ends.")
    ] = None,
    start_fd: Annotated[int | None, _START_FD] = None,
) -> None:
    """Shape an interface with tc-tbf (root): real packets, real drops. Leaves the interface as it was."""
    shape = bucket.Bucket.of(burst_bytes, queue_bytes, latency_ms)
    downlinks = ["=dst:".join(_named(item)) for item in to or []]
    matches = _matches([*(match or []), *downlinks], [_named(item)[0] for item in link])
    links = _links(link, [], seed, seconds, 0.0, 0)
    if target is None and len(matches) < len(links):
        raise ConfigError(
            "how are the links' packets told apart? give --target HOST:PORT, or --to or --match for every link"
        )
    shaping_log = _shaping_log(out) if out else None
    shaped = [tbf.TbfLink(spec.name, _uplink(spec), matches.get(spec.name, ())) for spec in links]
    fronts = [LinkSpec(spec.name, None, priority=class_of(index)) for index, spec in enumerate(links)]
    front = UserspaceShaper(_address(target), fronts, host=host) if target else None
    stopped = _noted_signals()
    try:
        with tbf.TbfShaper(interface, shaped, shaping_log, shape) as shaper:
            asyncio.run(_serve(front, ready_fd, start_fd, shaper, stopped))
    finally:
        if shaping_log is not None:
            shaping_log.close()


@app.command()
def clean(
    interface: Annotated[str | None, typer.Option(help="Only this one; by default all of this namespace.")] = None,
) -> None:
    """Remove what a shaper that was killed left on its interface."""
    cleaned = tbf.clean(interface)
    typer.echo(f"cleaned: {', '.join(cleaned)}" if cleaned else "nothing to clean")


@app.command("trace")
def describe(
    name: Annotated[str, typer.Argument(help=f"A file or one of: {', '.join(catalogue.names())}.")],
    seed: Annotated[int, typer.Option(min=0, help="Of a generated trace.")] = 0,
    seconds: Annotated[int, typer.Option(min=1, help="Length of a generated trace.")] = catalogue.DEFAULT_SECONDS,
    out: Annotated[Path | None, typer.Option(help="New file for it, one Mbit/s value per line and second.")] = None,
) -> None:
    """Make a trace, or describe one."""
    made = catalogue.resolve(name, seed, seconds)
    if out is not None:
        if out.exists():
            raise ConfigError(f"--out {out} exists; name another file (nothing is overwritten)")
        traces.write(made, out, f"{name}, seed {seed}, Mbit/s")
    outage_s = sum(
        end - start
        for start, end, rate in zip(made.starts_s, (*made.starts_s[1:], made.duration_s), made.rates_bps, strict=True)
        if rate == 0.0
    )
    typer.echo(
        f"{name}: {made.duration_s:.0f} s, mean {made.mean_bps / 1e6:.2f} Mbit/s, "
        f"{min(made.rates_bps) / 1e6:.2f} to {max(made.rates_bps) / 1e6:.2f}, outages {outage_s:.0f} s"
    )


def _shaping_log(directory: Path) -> CsvLog[ShapingRow]:
    set_aside(directory, (_LOG,))
    return CsvLog(directory / _LOG, ShapingRow)


def _matches(texts: list[str], links: list[str]) -> dict[str, tuple[Match, ...]]:
    matches: dict[str, tuple[Match, ...]] = {}
    for text in texts:
        name, value = _named(text)
        if name not in links:
            raise ConfigError(f"--match or --to names '{name}', which no --link has")
        matches[name] = (*matches.get(name, ()), Match.parse(value))
    return matches


def _uplink(spec: LinkSpec) -> traces.Trace:
    assert spec.uplink is not None
    return spec.uplink


def _numbered(clients: int, trace: str | None) -> list[str]:
    if clients == 0:
        return []
    if trace is None:
        raise ConfigError("--clients needs --trace: the name or file of their trace")
    return [f"client-{index}={catalogue.at_random(trace)}" for index in range(clients)]


def _links(
    uplinks: list[str], downlinks: list[str], seed: int, seconds: int, delay_ms: float, burst_bytes: int
) -> list[LinkSpec]:
    back = dict(_named(item) for item in downlinks)
    specs: list[LinkSpec] = []
    for index, item in enumerate(uplinks):
        name, trace_name = _named(item)
        if any(spec.name == name for spec in specs):
            raise ConfigError(f"--link names '{name}' twice; give every link its own name")
        specs.append(
            LinkSpec(
                name,
                catalogue.resolve_at(trace_name, seed + index, seconds),
                catalogue.resolve_at(back.pop(name), seed + index, seconds) if name in back else None,
                burst_bytes,
                delay_ms / 1e3,
            )
        )
    if not specs:
        raise ConfigError("no link to shape; give --link NAME=TRACE or --clients N --trace TRACE")
    if back:
        raise ConfigError(f"--downlink names '{next(iter(back))}', which no --link has")
    return specs


def _named(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise ConfigError(f"'{text}' is not NAME=TRACE")
    return name, value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"--target '{text}' is not HOST:PORT")
    return host, int(port)


def _noted_signals() -> list[int]:
    """What stops us only gets into this list until a loop takes it: an interface must not be left half changed."""
    noted: list[int] = []
    for number in _STOPPING:
        signal.signal(number, lambda number, _: noted.append(number))
    return noted


async def _serve(
    relay: UserspaceShaper | None,
    ready_fd: int | None,
    start_fd: int | None,
    shaper: tbf.TbfShaper | None = None,
    stopped: Sequence[int] = (),
) -> None:
    """Until SIGTERM, Ctrl-C, the parent's end, or an error of the tc shaper."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        # Not the loop's own handlers, which go with it, before the interface is as it was.
        signal.signal(number, lambda *_: loop.is_closed() or loop.call_soon_threadsafe(stop.set))
    if stopped:
        stop.set()
    parent = os.getppid()
    addresses = await relay.start() if relay else {}
    followed = threading.Event()
    following: list[asyncio.Task[None]] = []

    def begin() -> None:
        if relay is not None:
            relay.begin()
        if shaper is not None:
            following.append(asyncio.create_task(asyncio.to_thread(shaper.run, followed)))
            following[0].add_done_callback(lambda _: stop.set())

    if start_fd is None:
        begin()
    else:
        at_end_of(start_fd, begin, line_suffices=True)
    _say_ready(addresses, ready_fd)
    if ready_fd is None:
        await stop.wait()
    else:
        await _until_orphaned(stop, parent)
    followed.set()
    if relay is not None:
        await relay.close()
    await asyncio.gather(*following)


def _say_ready(addresses: dict[str, tuple[str, int]], ready_fd: int | None) -> None:
    links = {name: {"host": host, "port": port} for name, (host, port) in addresses.items()}
    ports = [port for _, port in addresses.values()]
    line = json.dumps({"ready": True, "pid": os.getpid(), "ports": ports, "links": links}) + "\n"
    if ready_fd is None:
        sys.stdout.write(line)
        sys.stdout.flush()
    else:
        os.write(ready_fd, line.encode())


async def _until_orphaned(stop: asyncio.Event, parent: int) -> None:
    while os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), _PARENT_CHECK_S)
        except asyncio.TimeoutError:
            continue
        return


def main() -> int:
    """Entry point: an error that the user can mend is one line."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    return command_line.run(app, "network_shaping")
