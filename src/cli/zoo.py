"""``moonjelly zoo``: train our own zoo; list, show, verify and record any."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cli.terminal import make_console
from moonjelly.errors import ConfigError
from moonjelly.inference.protocol import ModelSource
from moonjelly.models.definition import NetworkConfig
from moonjelly.models.weights import decode_weights
from moonjelly.profiles import Profile
from moonjelly.repository import Zoo, load_zoo, zoo_names
from moonjelly.training.store import Progress as TaskProgress

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train, list, show, verify and record model zoos.")

PROFILE_BATCHES = 60
"""Runs per (variant, batch) of the profile that a training ends with."""
PROFILE_LIMIT_S = 1.5
_COLUMNS = (
    TextColumn("{task.description:<24}"),
    BarColumn(),
    TextColumn("{task.percentage:>3.0f} %"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)
SPEED_WINDOW_S = 120.0
"""The time left is told from the speed of so long: a large model reports every quarter of a minute."""


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Directory of the zoo; a training that was stopped there goes on.")],
    seed: Annotated[int, typer.Option(min=0, help="Of scenes, first weights and batches.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Hardly train: a minute, to try the tools.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, of one thread each.")] = 2,
    profile: Annotated[bool, typer.Option(help="Measure latencies on this machine at the end.")] = True,
) -> None:
    """Train the 'synthetic' zoo on generated traffic scenes: about 20 minutes on two cores.

    Ctrl-C keeps what is done: the same command goes on from there.

    The same seed gives the same weights on the same build of torch and kind of processor.
    """
    from cli.training import train_zoo
    from moonjelly.training.zoo import variant_name

    console = make_console()
    try:
        with _Display(console) as display:
            chosen = train_zoo(
                out,
                seed=seed,
                quick=quick,
                jobs=jobs,
                report=display.show,
                profile=lambda: _profile(display, out, quick) if profile else None,
            )
    except KeyboardInterrupt:
        console.print(f"stopped; what is done stays in {out}: the same command goes on from there", soft_wrap=True)
        raise
    table = Table(title=f"{out}: {len(chosen)} variants", title_justify="left")
    for heading in ("variant", "input", "million multiply-adds", "AP50", "AP", "F1"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for one in chosen:
        costs = (str(one.input_size), f"{one.multiply_adds / 1e6:.1f}")
        table.add_row(variant_name(one), *costs, f"{one.ap50:.3f}", f"{one.ap:.3f}", f"{one.f1:.3f}")
    console.print(table)


@app.command("list")
def list_zoos() -> None:
    """List the zoos of this clone."""
    table = Table()
    for heading in ("zoo", "variants", "classes", "profiles"):
        table.add_column(heading, justify="right" if heading in ("variants", "classes") else "left")
    for name in zoo_names():
        zoo = load_zoo(name)
        table.add_row(name, str(len(zoo.variants)), str(len(zoo.classes)), ", ".join(zoo.kinds()) or "none")
    make_console().print(table)


@app.command()
def show(
    zoo: Annotated[str, typer.Argument(help="Name or directory.")],
    kind: Annotated[str | None, typer.Option(help="Device kind. [default: the first that there is]")] = None,
) -> None:
    """Show a zoo's variants with their accuracy and latency on one kind of device."""
    found = load_zoo(zoo)
    kinds = found.kinds()
    chosen = kind or next(iter(kinds), None)
    make_console().print(_variants(found, found.profile(chosen) if chosen else None))


@app.command()
def verify(zoo: Annotated[str, typer.Argument(help="Name or directory.")]) -> None:
    """Read every definition, weights file and profile of a zoo, and build every network."""
    from moonjelly.inference.frames import read_config  # NumPy and OpenCV; the other commands do without

    found = load_zoo(zoo)
    found.verify()
    for model in found.entries:
        source = found.source(model)
        configs = [read_config(variant, source) for variant in found.variants if variant.model == model]
        if configs:
            _build(configs[0], source)
    make_console().print(f"zoo '{found.name}' is whole: {len(found.variants)} variants, profiles of {_kinds(found)}")


@app.command()
def record(
    zoo: Annotated[str, typer.Argument(help="Name or directory.")],
    out: Annotated[Path, typer.Option(help="Directory of the recording: a COCO file per variant.")],
    source: Annotated[str, typer.Option(help="Video, pictures or synthetic[:SEED].")] = "synthetic",
    fps: Annotated[float | None, typer.Option(help="Rate of the clients that will show it. [default: its own]")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames, at most.")] = 300,
) -> None:
    """Record what every variant sees in a source: 'serve --runtime simulated --answers OUT' answers with it."""
    from cli.recording import record_zoo

    console = make_console()
    if fps is not None and fps <= 0.0:
        raise ConfigError(f"--fps {fps:g} must be positive")
    with Progress(*_COLUMNS, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=frames)
        count = record_zoo(
            zoo, source, fps, frames, out, lambda name, done: bars.update(bar, description=name, completed=done)
        )
    console.print(f"{count} frames of {source} as every variant of '{zoo}' sees them: {out}", soft_wrap=True)


def _build(config: NetworkConfig, source: ModelSource) -> None:
    """Put a model's weights in their places."""
    if source.architecture == "darknet":
        decode_weights(config, source.weights)
        return
    from moonjelly.models.checkpoint import load_checkpoint  # torch, for checkpoints alone

    load_checkpoint(config, source.weights)


def _kinds(zoo: Zoo) -> str:
    return ", ".join(zoo.kinds()) or "no device kind"


def _variants(zoo: Zoo, profile: Profile | None) -> Table:
    title = f"zoo '{zoo.name}'" + (f", p99 on '{profile.device_kind}'" if profile else ", no profile")
    table = Table(title=title, title_justify="left")
    for heading in ("variant", "input", "precision", "accuracy", "ms at batch 1"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for index, variant in enumerate(zoo.variants):
        measured = (f"{profile.accuracy[index]:.3f}", f"{profile.latency(index, 1):.2f}") if profile else ("-", "-")
        table.add_row(variant.name, str(variant.input_size), variant.precision, *measured)
    return table


def _profile(display: _Display, zoo: Path, quick: bool) -> None:
    from server.profiler import ProfilerOptions, run_profile

    if load_zoo(str(zoo)).kinds():
        return
    options = ProfilerOptions(
        zoo=str(zoo),
        out=zoo,
        num_gpus=1,
        max_batch=4 if quick else 12,
        num_batches=20 if quick else PROFILE_BATCHES,
        limit_s=PROFILE_LIMIT_S,
        clock="cpu",
        accuracy=zoo / "accuracy.txt",
    )
    doing = "measuring latencies"
    run_profile(options, lambda at: display.show(doing, TaskProgress(doing, round(at.done), round(at.total))))


class _Display:
    """A bar per task on a terminal; elsewhere a line per finished quarter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        hidden = not console.is_terminal
        self._bars = Progress(*_COLUMNS, console=console, disable=hidden, speed_estimate_period=SPEED_WINDOW_S)
        self._tasks: dict[str, TaskID] = {}
        self._quarters: dict[str, int] = {}

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._bars.stop()

    def show(self, task: str, progress: TaskProgress) -> None:
        doing = progress.doing if progress.loss is None else f"{progress.doing}, loss {progress.loss:.2f}"
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(doing, total=progress.total)
        self._bars.update(self._tasks[task], description=doing, completed=progress.done, total=progress.total)
        quarter = 4 * progress.done // progress.total
        if not self._console.is_terminal and self._quarters.get(progress.doing) != quarter:
            self._console.print(f"{25 * quarter:3d} %  {doing}")
        self._quarters[progress.doing] = quarter
