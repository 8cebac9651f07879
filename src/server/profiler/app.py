"""The command line of the profiler."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from moonjelly import config
from moonjelly.profiles import Profile
from moonjelly.repository import load_zoo
from server.profiler import run
from server.profiler.options import ProfilerOptions

app = typer.Typer(add_completion=False, help="Measure every (variant, batch size) of a zoo on this machine's devices.")

_STOPPED_STATUS = 3
"""Exit status of a run that was stopped: what it finished is kept, the profile is not there yet."""


@app.command()
def profile(
    zoo: Annotated[str | None, typer.Option(help="Name or directory of the zoo.", show_default="yolov4")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for KIND/; default: measured/ in the zoo.")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, torch, onnx or simulated.", show_default="auto")] = None,
    kind: Annotated[str | None, typer.Option(help="Device kind to write; default: what the device says.")] = None,
    num_gpus: Annotated[int | None, typer.Option(help="Devices that share the work.", show_default="2")] = None,
    num_dnns: Annotated[int | None, typer.Option(help="Only the first so many variants.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Batches 1 to this.", show_default="12")] = None,
    num_batches: Annotated[int | None, typer.Option(help="Runs per (variant, batch).", show_default="2000")] = None,
    warmup: Annotated[int | None, typer.Option(help="First runs that readers leave out.", show_default="10")] = None,
    limit_s: Annotated[float | None, typer.Option(help="Seconds per (variant, batch) at most; 0: no limit.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of the runtime on a CPU.", show_default="1")] = None,
    clock: Annotated[str | None, typer.Option(help="wall, or cpu on a shared machine.", show_default="wall")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the pictures that are shown.", show_default="0")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="Take accuracies from this accuracy.txt.")] = None,
    coco: Annotated[Path | None, typer.Option(help="Measure AP on FOLDER/instances.json and FOLDER/images.")] = None,
    metric: Annotated[str | None, typer.Option(help="ap or ap50, with --coco.", show_default="ap")] = None,
    golden: Annotated[str | None, typer.Option(help="Measure F1 against this variant, with --video.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video for --golden.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of the video.", show_default="100")] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file with these options.")] = None,
) -> None:
    """Measure and write a profile in Jellyfish's file formats, with provenance.

    Stopping it (Ctrl-C, SIGTERM) keeps what is finished; the same command goes on from there.

    Profiles that exist are never overwritten.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if name != "config_file"}
    options = config.load(
        ProfilerOptions, file=config_file, environment=os.environ, prefix="MOONJELLY_PROFILE_", overrides=given
    )
    console = Console()
    stop = _Stop()
    with _Display(console) as display:
        result = run.run_profile(options, display.show, stop.asked)
    if result.directory is None or result.profile is None:
        console.print(f"stopped; {result.pending} (variant, batch) to go. The same command goes on from here.")
        raise typer.Exit(_STOPPED_STATUS)
    console.print(_table(result.profile))
    console.print(f"profile of '{options.zoo}' for '{result.directory.name}': {result.directory}", soft_wrap=True)
    served = load_zoo(options.zoo)
    if not served.is_whole(result.directory):
        count = f"{len(result.profile.variants)} of {len(served.variants)}"
        console.print(f"it knows {count} variants: a profile of all of them is preferred to it", soft_wrap=True)


class _Stop:
    """Turns the first Ctrl-C or SIGTERM into a request; the second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def asked(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Display:
    """A bar with the time left on a terminal; elsewhere a line per finished tenth."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=120,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None)
        self._tenths = 0

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._bar.stop()

    def show(self, progress: run.Progress) -> None:
        self._bar.update(self._task, description=progress.doing, completed=progress.done, total=progress.total)
        tenths = int(10 * progress.done / progress.total)
        if tenths != self._tenths and not self._console.is_terminal:
            self._console.print(f"{10 * tenths:3d} %  {progress.doing}")
        self._tenths = tenths


def _table(profile: Profile) -> Table:
    table = Table(title=f"{profile.device_kind}: p99 of a batch, milliseconds", title_justify="left")
    last = profile.max_batch
    batches = sorted({1, last})
    for heading in ("variant", "accuracy", *(f"batch {batch}" for batch in batches), f"frames/s at {last}"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for index, variant in enumerate(profile.variants):
        table.add_row(
            variant.name,
            f"{profile.accuracy[index]:.3f}",
            *(f"{profile.latency(index, batch):.2f}" for batch in batches),
            f"{profile.throughput(index, last):.0f}",
        )
    return table
