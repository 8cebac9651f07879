"""A profiling run from options to a profile."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moonjelly import profiles
from moonjelly.errors import ConfigError, ProfileError, SourceError
from moonjelly.inference import make_executor
from moonjelly.profiles import Profile, variant_key
from moonjelly.repository import MEASURED, FileCache, Zoo, load_zoo
from moonjelly.types import Variant
from server.profiler.accuracy import EVALUATION, measure_ap, measure_f1, read_truth
from server.profiler.devices import Cell, started
from server.profiler.options import ProfilerOptions
from server.profiler.record import Record, facts


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, in work: one unit is a batch of one frame, of one pixel."""

    done: float
    total: float
    doing: str


@dataclass(frozen=True, slots=True)
class ProfileRun:
    """What a run left behind.

    Attributes:
        directory: of the profile, ``None`` when it was stopped before the end.
        profile: as readers will see it, ``None`` when it was stopped.
        pending: cells that are still to be measured.
    """

    directory: Path | None
    profile: Profile | None
    pending: int


def run_profile(
    options: ProfilerOptions,
    report: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ProfileRun:
    """Measure every (variant, batch size) on every device and write a profile.

    Args:
        options: see :class:`ProfilerOptions`.
        report: told the progress, a few times a second.
        stopped: asked as often; once it says true the run ends. What was finished is kept, and the same options go on
            from there.

    Raises:
        MoonjellyError: the options contradict one another, a file is missing, the profile exists, a device fails.
    """
    zoo = load_zoo(options.zoo)
    variants = zoo.variants[: options.num_dnns]
    _check(options, zoo)
    with started(options, str(zoo.directory)) as devices:
        kind = options.kind or devices.info.kind
        machine = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
        about = facts(options, zoo.name, devices.info, machine)
        record = Record(options.out or zoo.directory / MEASURED, kind, zoo.profile_key, variants, about)
        pending = record.pending(options.max_batch)
        work = _Work(zoo, pending, options.num_batches)
        for event in devices.measure(pending):
            if stopped():
                return ProfileRun(None, None, len(record.pending(options.max_batch)))
            if event is None:
                continue
            work.ran(event.cell, event.batches, finished=event.times_ms is not None)
            if event.times_ms is not None:
                record.add(event.cell, event.times_ms)
            report(work.progress(event.cell))
    try:
        accuracies, how = _accuracies(options, zoo, variants, report, stopped)
    except _StoppedError:
        return ProfileRun(None, None, 0)
    directory = record.finish(accuracies, how)
    return ProfileRun(directory, profiles.read_profile(directory, variants, zoo.profile_key), 0)


class _StoppedError(Exception):
    """The user stopped the run between two variants."""


class _Work:
    """Counts work in pixels, so that the time left is about right from the first variant on."""

    def __init__(self, zoo: Zoo, cells: list[Cell], batches: int) -> None:
        self._pixels = {variant.name: float(variant.input_size**2) for variant in zoo.variants}
        self._batches = batches
        self._total = sum(self._weight(cell) for cell in cells) * batches
        self._finished = 0.0
        self._running: dict[Cell, float] = {}

    def _weight(self, cell: Cell) -> float:
        return self._pixels[cell.variant] * cell.batch

    def ran(self, cell: Cell, batches: int, *, finished: bool) -> None:
        self._running[cell] = self._weight(cell) * batches
        if finished:
            del self._running[cell]
            self._finished += self._weight(cell) * self._batches

    def progress(self, cell: Cell) -> Progress:
        done = self._finished + sum(self._running.values())
        return Progress(done, self._total, f"{cell.variant}, batch {cell.batch}")


def _check(options: ProfilerOptions, zoo: Zoo) -> None:
    ways = [name for name in ("accuracy", "coco", "golden") if getattr(options, name) is not None]
    if len(ways) > 1:
        raise ConfigError(f"{' and '.join(repr(way) for way in ways)} are ways to know the accuracy; give one")
    if (options.golden is None) != (options.video is None):
        raise ConfigError("'golden' needs 'video', the file to compare on, and the other way round")
    if options.golden is not None:
        zoo.variant(options.golden)
    if options.runtime == "simulated" and (options.coco is not None or options.golden is not None):
        raise ConfigError("a simulated device has no accuracy of its own; leave 'coco' and 'golden' out")
    if options.runtime == "simulated" and options.kind is None:
        raise ConfigError(f"runtime 'simulated' needs 'kind', one of {', '.join(zoo.kinds()) or 'none'}")
    if options.runtime == "simulated" and options.clock == "cpu":
        raise ConfigError("a simulated device sleeps; clock 'cpu' has nothing to count")
    if options.num_batches <= options.warmup:
        raise ConfigError(f"num_batches {options.num_batches} must be more than warmup {options.warmup}")
    if options.coco is not None:
        read_truth(options.coco)
    if options.video is not None and not options.video.is_file():
        raise SourceError(f"video {options.video} does not exist")
    if options.runtime != "simulated":
        for model in {variant.model for variant in zoo.variants[: options.num_dnns]}:
            zoo.source(model)
    if options.coco is None and options.golden is None:
        _known_accuracies(zoo, zoo.variants[: options.num_dnns], options.accuracy)


def _accuracies(
    options: ProfilerOptions,
    zoo: Zoo,
    variants: tuple[Variant, ...],
    report: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> tuple[dict[str, float], str]:
    done: list[str] = []

    def tell(variant: str) -> None:
        if stopped():
            raise _StoppedError
        done.append(variant)
        report(Progress(len(done), len(variants), f"accuracy of {variant}"))

    if options.coco is not None:
        with_weak = make_executor(options.runtime, cache=FileCache(), post=EVALUATION, threads=options.threads)
        measured = measure_ap(with_weak, zoo, variants, options.coco, options.metric, tell)
        return measured, f"{options.metric} by pycocotools on {options.coco.name}/instances.json"
    if options.golden is not None and options.video is not None:
        executor = make_executor(options.runtime, cache=FileCache(), threads=options.threads)
        measured = measure_f1(executor, zoo, variants, options.golden, options.video, options.frames, tell)
        return measured, f"F1 at IoU 0.5 against {options.golden} on {options.frames} frames of {options.video.name}"
    return _known_accuracies(zoo, variants, options.accuracy)


def _known_accuracies(zoo: Zoo, variants: tuple[Variant, ...], file: Path | None) -> tuple[dict[str, float], str]:
    """Accuracies of a file, or those that the zoo came with: they do not depend on the device."""
    if file is not None and not file.exists():
        raise ConfigError(f"'accuracy' = {file} does not exist; name an accuracy.txt, or none to take the zoo's")
    keys = {variant.name: variant_key(variant, zoo.profile_key) for variant in variants}
    files = [zoo.profile_directory(kind) / "accuracy.txt" for kind in zoo.kinds()] if file is None else [file]
    for candidate in files:
        known = profiles.read_accuracy(candidate)
        if all(key in known for key in keys.values()):
            origin = f"the zoo's profile '{candidate.parent.name}'" if file is None else file.name
            return {name: known[key] for name, key in keys.items()}, f"taken from {origin}"
    where = f"zoo '{zoo.name}' has no accuracies" if file is None else f"{file} lacks accuracies"
    raise ProfileError(
        f"{where} of {', '.join(keys.values())}; measure them with --coco FOLDER, or --golden VARIANT --video FILE"
    )
