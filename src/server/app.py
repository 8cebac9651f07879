"""``moonjelly serve`` and ``python -m server``: start a server and wait until it is told to stop."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from moonjelly import command_line, config
from server.child import prompt_threads
from server.config import DEFAULT_PORT, ENVIRONMENT_PREFIX, MAX_SESSIONS, ServerOptions
from server.report import report
from server.service import Listening, Service

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _option(text: str, panel: str | None = None) -> Any:
    return typer.Option(help=text, show_default=False, rich_help_panel=panel)


_of_devices = functools.partial(_option, panel="Devices")
_of_plans = functools.partial(_option, panel="Plans and batches")
_of_access = functools.partial(_option, panel="Access")
_of_limits = functools.partial(_option, panel="Limits")


@app.command()
def serve(
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file with any of these options.")] = None,
    zoo: Annotated[
        list[str] | None, _option("Zoo: name, directory or GROUP=ZOO; repeatable. Default: synthetic.")
    ] = None,
    out: Annotated[Path | None, _option("Directory of logs and summary.json. Default: logs/server.")] = None,
    seed: Annotated[int | None, _option("Of everything drawn. Default: 0.")] = None,
    grace_s: Annotated[
        float | None, _option("Seconds that streams get to end when the server stops. Default: 3.")
    ] = None,
    ready_fd: Annotated[int | None, _option("Descriptor for one JSON line when the server is ready.")] = None,
    devices: Annotated[int | None, _of_devices("Executors to start. Default: one per GPU, else 1.")] = None,
    runtime: Annotated[str | None, _of_devices("auto, torch, onnx or simulated. Default: auto.")] = None,
    kind: Annotated[
        str | None, _of_devices("Device kind that simulated devices behave like. Default: the zoo's first.")
    ] = None,
    answers: Annotated[
        list[str] | None,
        _of_devices(
            "What simulated devices answer with: a COCO file or a folder of 'zoo record', or GROUP=PLACE; repeatable. "
            "Default: synthetic boxes."
        ),
    ] = None,
    scale: Annotated[float | None, _of_devices("Factor on a simulated device's latencies. Default: 1.")] = None,
    speeds: Annotated[str | None, _of_devices("Factor on the profile per device, e.g. 1,0.5. Default: 1.")] = None,
    threads: Annotated[int | None, _of_devices("That a CPU device computes with. Default: 1.")] = None,
    decoders: Annotated[int | None, _of_devices("Decoding threads per device. Default: 2.")] = None,
    resident: Annotated[
        int | None, _of_devices("Variants kept loaded around the active one; 0: all. Default: 0.")
    ] = None,
    max_batch: Annotated[int | None, _of_devices("Largest batch. Default: 12.")] = None,
    policy: Annotated[str | None, _of_plans("Planning policy. Default: multiset.")] = None,
    dispatcher: Annotated[str | None, _of_plans("Batch policy. Default: edf-adaptive.")] = None,
    interval_s: Annotated[float | None, _of_plans("Seconds between planning runs. Default: 0.5.")] = None,
    plan_budget_s: Annotated[
        float | None, _of_plans("Seconds after which the fallback plan is used. Default: 0.25.")
    ] = None,
    rho: Annotated[float | None, _of_plans("Share of a device's throughput that may be planned. Default: 0.9.")] = None,
    latency_factor: Annotated[
        str | None, _of_plans("Batches a frame waits for, its own included: a number, or auto. Default: 2.")
    ] = None,
    host: Annotated[str | None, _of_access("Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, _of_access(f"Port; 0 takes any free one. Default: {DEFAULT_PORT}.")] = None,
    token: Annotated[str | None, _of_access("Clients must present it. Default: none.")] = None,
    tls_cert: Annotated[Path | None, _of_access("PEM certificate chain.")] = None,
    tls_key: Annotated[Path | None, _of_access("PEM private key.")] = None,
    max_sessions: Annotated[int | None, _of_limits(f"Clients at a time, at most {MAX_SESSIONS}. Default: 256.")] = None,
    session_ttl_s: Annotated[
        float | None, _of_limits("Seconds for which a lost session can be resumed. Default: 30.")
    ] = None,
    max_frame_bytes: Annotated[int | None, _of_limits("Largest encoded frame. Default: 2 MiB.")] = None,
    max_pixels: Annotated[int | None, _of_limits("Largest picture. Default: 16 Mi.")] = None,
    max_outstanding: Annotated[int | None, _of_limits("Unanswered frames of one client. Default: 32.")] = None,
    slots: Annotated[int | None, _of_limits("Frames that one device may hold. Default: 256.")] = None,
) -> None:
    """Serve camera streams with end-to-end deadlines until SIGTERM or Ctrl-C."""
    given = {key: value for key, value in locals().items() if key not in ("config_file", "ready_fd")}
    given |= {"zoo": tuple(zoo) if zoo else None, "answers": tuple(answers) if answers else None}
    options = config.load(
        ServerOptions, file=config_file, environment=os.environ, prefix=ENVIRONMENT_PREFIX, overrides=given
    )
    run(options, ready_fd)


def run(options: ServerOptions, ready_fd: int | None = None) -> None:
    """Serve until told to stop, then say what was served.

    Raises:
        MoonjellyError: it cannot start.
    """
    logging.basicConfig(format="%(asctime)s server %(levelname)s %(message)s", level=logging.WARNING)
    if not _is_loopback(options.host) and options.tls_cert is None and not options.token:
        logging.warning("listening on %s with neither TLS nor a token: anybody may connect", options.host)
    began_ns = time.monotonic_ns()
    with prompt_threads():
        core = uvloop.run(_serve(options, ready_fd))
    report(core, options, (time.monotonic_ns() - began_ns) / 1e9)


async def _serve(options: ServerOptions, ready_fd: int | None) -> Any:
    service = Service(options)

    def ready(listening: Listening) -> None:
        gc.collect()
        gc.freeze()
        zoos = ", ".join(f"{zoo} for group '{group}'" for group, zoo in listening.zoos.items())
        typer.echo(
            f"moonjelly serves {zoos} on {options.host}:{listening.port} "
            f"with {len(listening.device_kinds)} device(s): {', '.join(listening.device_kinds)}"
        )
        if ready_fd is not None:
            line = {
                "port": listening.port,
                "pid": os.getpid(),
                "zoo": next(iter(listening.zoos.values())),
                "device_kinds": list(listening.device_kinds),
            }
            with open(ready_fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return await service.run(ready)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def main() -> int:
    """With the one-line errors and exit codes of :mod:`moonjelly.errors`."""
    return command_line.run(app, "moonjelly serve")
