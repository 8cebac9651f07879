"""A sweep is a matrix that expands to runs with stable names; pure."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from moonjelly.config import Options, load

Positive = Annotated[float, Field(gt=0)]


class Mix(Options):
    """A mixed setting: the deadlines and rates of its devices, in turn ("var_var" in Jellyfish's experiments)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    slo_ms: tuple[Positive, ...] = Field(min_length=1)
    fps: tuple[Positive, ...] = Field(min_length=1)


class Sweep(Options):
    """The matrix; every combination is a run.

    Attributes:
        clients: numbers of devices.
        slo_ms: deadlines, the same for all devices of a run.
        fps: frame rates, the same for all devices of a run.
        mixes: further settings in which deadlines and rates differ between devices.
        sources: videos or scenes that the devices see.
        traces: network traces.
        policies: planning policies.
        repetitions: of each combination, with seeds that differ.
        seconds: length of a run.
        seed: of the first repetition.
        zoo: model zoo.
        devices: executors on the server.
        runtime: their runtime.
        shaping: ``tc`` on the client machines' interfaces (root), ``relay`` in user space, or ``none``.
        retries: how often a failed or starved run is repeated.
    """

    clients: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8)
    slo_ms: tuple[Positive, ...] = (75.0, 100.0, 150.0)
    fps: tuple[Positive, ...] = (15.0, 25.0)
    mixes: tuple[Mix, ...] = ()
    sources: tuple[str, ...] = Field(default=("synthetic",), min_length=1)
    traces: tuple[str, ...] = Field(default=("synthetic_trace",), min_length=1)
    policies: tuple[str, ...] = Field(default=("multiset",), min_length=1)
    repetitions: int = Field(default=3, ge=1)
    seconds: Positive = 60.0
    seed: int = 0
    zoo: str = "synthetic"
    devices: int = Field(default=2, ge=1)
    runtime: str = "auto"
    shaping: Literal["tc", "relay", "none"] = "tc"
    retries: int = Field(default=1, ge=0)


@dataclass(frozen=True)
class Device:
    """One emulated device of a run."""

    client_id: int
    slo_ms: float
    fps: float


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: stable over sweeps, also the path of its results: ``<trace>/<policy>/<setting>_<source>/<repetition>``.
        setting: name of deadlines and rates, ``slo-100_fps-15`` or the name of a mix.
        devices: what the client machines emulate.
        seed: of trace offsets, scenes and planning; the same for all policies and settings of a repetition.
    """

    name: str
    setting: str
    devices: tuple[Device, ...]
    source: str
    trace: str
    policy: str
    repetition: int
    seed: int


def expand(sweep: Sweep) -> tuple[Run, ...]:
    """All runs, in an order that finishes whole repetitions first, so that an interrupted sweep is usable."""
    settings: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
        (f"slo-{slo:g}_fps-{fps:g}", (slo,), (fps,)) for slo in sweep.slo_ms for fps in sweep.fps
    ]
    settings += [(mix.name, mix.slo_ms, mix.fps) for mix in sweep.mixes]
    runs = []
    for repetition, trace, policy, source, count, (setting, slos, rates) in itertools.product(
        range(sweep.repetitions), sweep.traces, sweep.policies, sweep.sources, sweep.clients, settings
    ):
        devices = tuple(Device(number, slos[number % len(slos)], rates[number % len(rates)]) for number in range(count))
        name = PurePosixPath(
            slug(trace), slug(policy), f"clients-{count}_{setting}_{slug(source)}", f"iter-{repetition}"
        )
        runs.append(Run(str(name), setting, devices, source, trace, policy, repetition, sweep.seed + 1000 * repetition))
    return tuple(runs)


def slug(text: str) -> str:
    """A path-safe name of a source or trace: the stem of a file, other characters replaced."""
    stem = Path(text).stem if "/" in text else text
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-") or "x"


def share(devices: tuple[Device, ...], machines: int) -> tuple[tuple[Device, ...], ...]:
    """Devices dealt to client machines in turn, so that machines carry equal numbers."""
    return tuple(devices[start::machines] for start in range(machines))


def read_sweep(path: Path | None, overrides: dict[str, object]) -> Sweep:
    """A sweep from a TOML file and command-line values.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    return load(Sweep, file=path, overrides=overrides)
