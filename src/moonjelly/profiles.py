"""Accuracy and latency of every variant on one kind of device, and the files they lie in.

The files are Jellyfish's, so that its users' profiles are read as they are (``docs/profiling.md``)::

    <kind>/accuracy.txt                         ModelSize,Accuracy
    <kind>/latency/profile_latency_<key>.txt    ModelSize,Batch,InferenceTime (ms), one row per batch run
    <kind>/provenance.json                      ours: how the rows were made; optional

``ModelSize`` holds a variant's *key*: its input size where one model has unique sizes, else its name.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moonjelly.errors import ProfileError, cause
from moonjelly.types import Variant

ProfileKey = Literal["variant", "input_size"]
"""What names a variant in profile files."""

Monotone = Literal["both", "batch", "none"]
"""Which directions the monotone correction runs in."""

LATENCY_HEADER = ("ModelSize", "Batch", "InferenceTime")
ACCURACY_HEADER = ("ModelSize", "Accuracy")
DEFAULT_WARMUP_ROWS = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device kind reaches with the variants of one zoo.

    Variants are in zoo order: increasing accuracy and cost, as planning assumes (Jellyfish, section III).

    Attributes:
        device_kind: e.g. ``cpu``, ``reference-gpu``.
        variants: the ``M`` variants.
        accuracy: ``(M,)`` in [0, 1].
        latency_ms: ``(M, B)``; ``latency_ms[j][b - 1]`` is the percentile of the time to infer a batch of ``b``
            (model and NMS), non-decreasing in ``b``.
    """

    device_kind: str
    variants: tuple[Variant, ...]
    accuracy: tuple[float, ...]
    latency_ms: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.variants)
        if count == 0:
            raise ProfileError(f"profile '{self.device_kind}' has no variants")
        if len(self.accuracy) != count or len(self.latency_ms) != count:
            raise ProfileError(
                f"profile '{self.device_kind}' has {count} variants, {len(self.accuracy)} accuracies and "
                f"{len(self.latency_ms)} latency rows; one of each per variant is needed"
            )
        width = len(self.latency_ms[0])
        for variant, accuracy, row in zip(self.variants, self.accuracy, self.latency_ms, strict=True):
            if not 0.0 <= accuracy <= 1.0:
                raise ProfileError(f"accuracy of '{variant.name}' is {accuracy}; it must be in [0, 1]")
            if len(row) != width or width == 0:
                raise ProfileError(
                    f"'{variant.name}' has latencies for {len(row)} batch sizes, others for {width}; "
                    "profile every variant at the same batch sizes 1..B"
                )
            _check_row(variant.name, row)

    @property
    def max_batch(self) -> int:
        """Largest profiled batch ``B``."""
        return len(self.latency_ms[0])

    def latency(self, variant: int, batch: int, speed: float = 1.0) -> float:
        """Milliseconds for ``batch`` frames with variant index ``variant`` on a device of ``speed``."""
        return self.latency_ms[variant][batch - 1] / speed

    def throughput(self, variant: int, batch: int, speed: float = 1.0) -> float:
        """Frames per second at ``batch``: ``1000 b / lat[j, b]`` (Jellyfish, section III)."""
        return 1000.0 * batch / self.latency(variant, batch, speed)


def _check_row(name: str, row: Sequence[float]) -> None:
    for batch, value in enumerate(row, start=1):
        if not 0.0 < value < float("inf"):
            raise ProfileError(f"latency of '{name}' at batch {batch} is {value} ms; it must be positive and finite")
        if batch > 1 and value < row[batch - 2]:
            raise ProfileError(
                f"latency of '{name}' falls from {row[batch - 2]} to {value} ms at batch {batch}; "
                "apply the monotone correction (profiles.monotone) first"
            )


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How rows of measurements become a table.

    Attributes:
        percentile: of the rows of one (variant, batch), in (0, 100]; Jellyfish plans with the 99th.
        warmup_rows: first rows of each (variant, batch) to leave out; ``None``: what the provenance says, else 10.
        monotone: see :func:`monotone`; ``none`` fails on a row that falls with the batch size.
        max_batch: leave larger batches out; ``None``: read all.
    """

    percentile: float = 99.0
    warmup_rows: int | None = None
    monotone: Monotone = "both"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.percentile <= 100.0:
            raise ProfileError(f"percentile {self.percentile} is outside (0, 100]")
        if self.warmup_rows is not None and self.warmup_rows < 0:
            raise ProfileError(f"warmup_rows {self.warmup_rows} must not be negative")
        if self.max_batch is not None and self.max_batch < 1:
            raise ProfileError(f"max_batch {self.max_batch} must be at least 1")


DEFAULT_OPTIONS = ProfileOptions()


def variant_key(variant: Variant, key: ProfileKey) -> str:
    """What names ``variant`` in profile files."""
    return variant.name if key == "variant" else str(variant.input_size)


def latency_file(directory: Path, key: str) -> Path:
    """Where the latency rows of one variant lie."""
    return directory / "latency" / f"profile_latency_{key}.txt"


def monotone(latency_ms: Sequence[Sequence[float]], directions: Monotone = "both") -> tuple[tuple[float, ...], ...]:
    """Raise entries of an ``(M, B)`` table so that it never falls.

    A larger batch, or a more accurate variant, can only measure faster by noise; planning relies on that (Jellyfish
    makes its tables monotone in both). Each entry becomes the largest of those before it: along the batch
    (``batch``), and along the variants too (``both``). ``none`` returns the table as it is.
    """
    table = np.asarray(latency_ms, dtype=float)
    if directions != "none":
        table = np.maximum.accumulate(table, axis=1)
    if directions == "both":
        table = np.maximum.accumulate(table, axis=0)
    return tuple(tuple(float(value) for value in row) for row in table)


def read_profile(
    directory: Path,
    variants: Sequence[Variant],
    key: ProfileKey = "variant",
    options: ProfileOptions = DEFAULT_OPTIONS,
) -> Profile:
    """Read the profile of one device kind, named by the directory.

    Raises:
        ProfileError: a file is missing or broken, a variant has no rows, or batches are missing between 1 and B.
    """
    warmup = _warmup_rows(directory, options)
    accuracies = read_accuracy(directory / "accuracy.txt")
    accuracy, table = [], []
    for variant in variants:
        name = variant_key(variant, key)
        if name not in accuracies:
            raise ProfileError(
                f"{directory / 'accuracy.txt'} has no row for '{name}' (variant '{variant.name}'); "
                f"it has {', '.join(accuracies) or 'none'}"
            )
        accuracy.append(accuracies[name])
        table.append(_percentiles(latency_file(directory, name), name, warmup, options))
    widths = {len(row): variant.name for row, variant in zip(table, variants, strict=True)}
    if len(widths) > 1:
        facts = ", ".join(f"'{name}' 1..{width}" for width, name in sorted(widths.items()))
        raise ProfileError(f"{directory} has different batch sizes per variant ({facts}); profile all at the same ones")
    return Profile(directory.name, tuple(variants), tuple(accuracy), monotone(table, options.monotone))


def read_accuracy(file: Path) -> dict[str, float]:
    """Key to accuracy in [0, 1].

    Raises:
        ProfileError: the file is missing, has another header, or a value is not a number in [0, 1].
    """
    accuracies: dict[str, float] = {}
    for line, (name, cell) in _rows(file, ACCURACY_HEADER):
        if name in accuracies:
            raise ProfileError(f"{file}, line {line}: '{name}' is there twice")
        accuracies[name] = _number(file, line, "Accuracy", cell, low=0.0, high=1.0)
    return accuracies


def read_latency(file: Path, key: str) -> dict[int, list[float]]:
    """Batch size to the milliseconds of its runs, in the order they were measured.

    Raises:
        ProfileError: the file is missing, has another header, rows of another key, or a value that is no time.
    """
    runs: dict[int, list[float]] = {}
    for line, (name, batch, cell) in _rows(file, LATENCY_HEADER):
        if name != key:
            raise ProfileError(f"{file}, line {line}: ModelSize is '{name}', the file is for '{key}'")
        size = _number(file, line, "Batch", batch, low=1.0)
        if size != int(size):
            raise ProfileError(f"{file}, line {line}: Batch '{batch}' is not a whole number")
        runs.setdefault(int(size), []).append(_number(file, line, "InferenceTime", cell, low=0.0))
    return runs


def read_provenance(directory: Path) -> dict[str, Any]:
    """What is known of how a profile was made; empty where nothing is.

    Raises:
        ProfileError: the file is there but is not a JSON object.
    """
    file = directory / "provenance.json"
    if not file.exists():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ProfileError(f"{file} cannot be read: {cause(fault)}") from fault
    if not isinstance(facts, dict):
        raise ProfileError(f"{file} holds no JSON object")
    return facts


def write_latency(file: Path, key: str, runs: Mapping[int, Iterable[float]]) -> None:
    """Write the rows of one variant: batch size to milliseconds per run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(LATENCY_HEADER)
        for batch in sorted(runs):
            writer.writerows((key, batch, f"{value:.4g}") for value in runs[batch])


def write_accuracy(file: Path, accuracies: Mapping[str, float]) -> None:
    """Write key to accuracy (6 decimals), in the mapping's order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(ACCURACY_HEADER)
        writer.writerows((key, f"{value:.6f}") for key, value in accuracies.items())


def write_provenance(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write how a profile was made."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(facts), indent=2, sort_keys=True)
    (directory / "provenance.json").write_text(text + "\n", encoding="utf-8")


def _warmup_rows(directory: Path, options: ProfileOptions) -> int:
    if options.warmup_rows is not None:
        return options.warmup_rows
    value = read_provenance(directory).get("warmup_rows", DEFAULT_WARMUP_ROWS)
    if not isinstance(value, int) or value < 0:
        raise ProfileError(f"{directory / 'provenance.json'}: warmup_rows is {value!r}, not a count")
    return value


def _percentiles(file: Path, key: str, warmup: int, options: ProfileOptions) -> list[float]:
    runs = read_latency(file, key)
    last = min(max(runs, default=0), options.max_batch or sys.maxsize)
    holes = [batch for batch in range(1, last + 1) if batch not in runs]
    if holes or not last:
        raise ProfileError(f"{file} has no rows for batch {', '.join(map(str, holes)) or 1}; batches 1..B are needed")
    row = []
    for batch in range(1, last + 1):
        kept = runs[batch][warmup:]
        if not kept:
            raise ProfileError(
                f"{file} has {len(runs[batch])} rows for batch {batch} and the first {warmup} are warm-up; "
                "profile more batches or lower warmup_rows"
            )
        row.append(float(np.percentile(kept, options.percentile)))
    return row


def _rows(file: Path, header: tuple[str, ...]) -> Iterable[tuple[int, list[str]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as source:
            reader = csv.reader(source)
            found = tuple(cell.strip() for cell in next(reader, []))
            if found != header:
                raise ProfileError(f"{file} begins with '{','.join(found)}'; '{','.join(header)}' is expected")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ProfileError(f"{file}, line {reader.line_num}: {len(cells)} cells, {len(header)} expected")
                yield reader.line_num, [cell.strip() for cell in cells]
    except FileNotFoundError:
        raise ProfileError(f"{file} does not exist; 'moonjelly profile' makes it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise ProfileError(f"{file} cannot be read: {cause(fault)}") from fault


def _number(file: Path, line: int, name: str, cell: str, low: float, high: float = math.inf) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ProfileError(f"{file}, line {line}: {name} '{cell}' is not a number") from None
    if not low <= value <= high or math.isinf(value) or math.isnan(value):
        raise ProfileError(f"{file}, line {line}: {name} {cell} must be in [{low:g}, {high:g}]")
    return value
