"""The directory that a run fills: cell by cell, resumable, and in its place only when it is whole.

Rows gather in ``<kind>.partial/``; the last step renames it to ``<kind>/``. What is there already is never touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moonjelly import profiles
from moonjelly.errors import ConfigError, ProfileError
from moonjelly.profiles import ProfileKey, variant_key
from moonjelly.repository import PARTIAL_SUFFIX, check_name
from moonjelly.types import Variant
from moonjelly.version import __version__
from server import ipc
from server.profiler.devices import Cell
from server.profiler.options import ProfilerOptions

_DECIDE_ROWS = ("num_batches", "warmup", "limit_s", "threads", "seed", "max_batch", "runtime", "clock")
"""Options that must not change between a run and its resumption."""


class Record:
    """One run's results on disk.

    Raises:
        ProfileError: the profile exists already, or a partial one was begun with other options or on another device.
    """

    def __init__(
        self, out: Path, kind: str, key: ProfileKey, variants: Sequence[Variant], facts: Mapping[str, Any]
    ) -> None:
        self.final = out / check_name("device kind", kind)
        self._key = key
        self._variants = {variant.name: variant for variant in variants}
        self._facts = dict(facts)
        self._partial = out / f"{kind}{PARTIAL_SUFFIX}"
        if self.final.exists():
            raise ProfileError(
                f"{self.final} exists and profiles are never overwritten; name another --out or --kind, or remove it"
            )
        self._check_resumable()
        self._runs = {variant.name: self._read(variant) for variant in variants}

    def pending(self, max_batch: int) -> list[Cell]:
        """Cells that have no rows yet."""
        return [
            Cell(name, batch)
            for name, runs in self._runs.items()
            for batch in range(1, max_batch + 1)
            if batch not in runs
        ]

    def add(self, cell: Cell, times_ms: Sequence[float]) -> None:
        """Keep the rows of a cell; they are on disk when this returns."""
        runs = self._runs[cell.variant]
        runs[cell.batch] = list(times_ms)
        name = self._name(cell.variant)
        file = profiles.latency_file(self._partial, name)
        beside = file.with_suffix(".new")
        profiles.write_latency(beside, name, runs)
        os.replace(beside, file)

    def finish(self, accuracies: Mapping[str, float], how: str) -> Path:
        """Write accuracies (by variant name) and provenance, and put the profile in its place."""
        rows = {self._name(name): value for name, value in accuracies.items()}
        profiles.write_accuracy(self._partial / "accuracy.txt", rows)
        profiles.write_provenance(self._partial, {**self._facts, "accuracy": how})
        self._partial.rename(self.final)
        return self.final

    def _name(self, variant: str) -> str:
        return variant_key(self._variants[variant], self._key)

    def _read(self, variant: Variant) -> dict[int, list[float]]:
        name = variant_key(variant, self._key)
        file = profiles.latency_file(self._partial, name)
        return profiles.read_latency(file, name) if file.exists() else {}

    def _check_resumable(self) -> None:
        if not self._partial.exists():
            try:
                profiles.write_provenance(self._partial, self._facts)
            except OSError as fault:
                raise ConfigError(f"{self._partial} cannot be written: {fault}") from fault
            return
        begun = profiles.read_provenance(self._partial)
        for name in ("options", "device"):
            if begun.get(name) != self._facts[name]:
                raise ProfileError(
                    f"{self._partial} was begun with {name} {begun.get(name)}, now it is {self._facts[name]}; "
                    "repeat the command as it was to resume, or remove the folder to begin anew"
                )


def facts(options: ProfilerOptions, zoo: str, device: ipc.Ready, machine: Mapping[str, str]) -> dict[str, Any]:
    """What the provenance says of a measured profile."""
    return {
        "format": 1,
        "made_by": f"moonjelly {__version__}, moonjelly profile",
        "measured": True,
        "zoo": zoo,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": {"kind": device.kind, "name": device.name, "runtime": device.runtime},
        "versions": {**device.versions, **machine},
        "options": {name: getattr(options, name) for name in _DECIDE_ROWS},
        "warmup_rows": options.warmup,
        "what": f"milliseconds ({options.clock} clock) of one call of the executor: inference and NMS of one batch",
    }
