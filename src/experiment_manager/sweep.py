"""A sweep is a matrix that expands to runs with stable names; pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from moonjelly.config import Options, load
from moonjelly.errors import ConfigError
from network_shaping import bucket

Positive = Annotated[float, Field(gt=0)]
STARVED_MS = 0.3
"""Default of :attr:`Sweep.starved_ms`. Measured on two cores with other work: where processes waited 0.3 ms a turn the
misses were the simulation's, at 0.4 to 0.55 ms one to two points above, at 0.9 ms seven; at real-time priority they
wait for 0.03 to 0.08 ms."""
_LINK_OPTIONS = ("burst_bytes", "queue_bytes", "latency_ms")
OVERHEAD_S = 15.0
"""What a run takes besides streaming: to start, settle and be collected (measured)."""


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
        warmup_s: streamed before that and left out of the figures.
        seed: of the first repetition.
        zoo: model zoo.
        devices: executors on the server.
        runtime: their runtime.
        kind: device kind that simulated devices behave like; the zoo's first when empty.
        pre_encoded: so many frames per device, encoded before the run (measurements); 0: encode while streaming.
        padded: frames padded to Jellyfish's table of worst-case sizes (measurements).
        shaping: ``tc`` on the client machines' interfaces (root), ``relay`` in user space, or ``none``.
        burst_bytes: that a link passes at once after a pause; the shaper's default when ``None``, as for the next two.
        queue_bytes: that may wait before a link's bucket (``tc``).
        latency_ms: in its place, how long a packet may wait there at the link's rate of the moment (``tc``).
        retries: how often a failed or starved run is repeated.
        starved_ms: a run is starved when the server, the links or a client waited longer than this for a processor, on
            average over the times that they became ready to run.
    """

    clients: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 2, 4, 8), min_length=1)
    slo_ms: tuple[Positive, ...] = (75.0, 100.0, 150.0)
    fps: tuple[Positive, ...] = (15.0, 25.0)
    mixes: tuple[Mix, ...] = ()
    sources: tuple[str, ...] = Field(default=("synthetic",), min_length=1)
    traces: tuple[str, ...] = Field(default=("synthetic_trace",), min_length=1)
    policies: tuple[str, ...] = Field(default=("multiset",), min_length=1)
    repetitions: int = Field(default=3, ge=1)
    seconds: Positive = 60.0
    warmup_s: float = Field(default=0.0, ge=0)
    seed: int = 0
    zoo: str = "synthetic"
    devices: int = Field(default=2, ge=1)
    runtime: str = "auto"
    kind: str = ""
    pre_encoded: int = Field(default=0, ge=0)
    padded: bool = False
    shaping: Literal["tc", "relay", "none"] = "tc"
    burst_bytes: int | None = Field(default=None, ge=bucket.MIN_BURST_BYTES)
    queue_bytes: int | None = Field(default=None, ge=bucket.MIN_QUEUE_BYTES)
    latency_ms: float | None = Field(default=None, ge=bucket.MIN_LATENCY_MS)
    retries: int = Field(default=1, ge=0)
    starved_ms: float = Field(default=STARVED_MS, ge=0)

    @field_validator("clients", "slo_ms", "fps", "sources", "traces", "policies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """The command line gives lists as text."""
        return split_words(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _links_can_be_made(self) -> Sweep:
        bucket.Bucket.of(self.burst_bytes, self.queue_bytes, self.latency_ms)
        known = {"tc": _LINK_OPTIONS, "relay": ("burst_bytes",), "none": ()}[self.shaping]
        for name, value in self.link_options.items():
            if name not in known:
                raise ConfigError(
                    f"{name} = {value} is given, but links with shaping = '{self.shaping}' have nothing of the kind; "
                    "leave it out, or set shaping = 'tc'"
                )
        return self

    @property
    def link_options(self) -> dict[str, float]:
        """What is said of the links' buckets and queues."""
        told = {name: getattr(self, name) for name in _LINK_OPTIONS}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Device:
    """One emulated device of a run.

    Attributes:
        client_id: its number in the run.
        slo_ms: deadline.
        fps: frame rate.
        machine: label of the client machine that emulates it; empty: dealt in turn.
    """

    client_id: int
    slo_ms: float
    fps: float
    machine: str = ""


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


@dataclass(frozen=True)
class Fleet:
    """A named set of devices: one point of the matrix's axes clients, deadline and rate."""

    setting: str
    devices: tuple[Device, ...]


def conditions(sweep: Sweep) -> dict[str, Any]:
    """What all runs of a sweep have in common and their names do not tell; results are comparable only if equal."""
    names = ("seconds", "warmup_s", "zoo", "devices", "runtime", "kind", "pre_encoded", "padded", "shaping")
    return {name: getattr(sweep, name) for name in (*names, *_LINK_OPTIONS)}


def fleets(sweep: Sweep) -> tuple[Fleet, ...]:
    """The combinations of numbers of clients, deadlines and rates, and the mixes."""
    settings: list[tuple[str, tuple[float, ...], tuple[float, ...]]] = [
        (setting_of(slo, fps), (slo,), (fps,)) for slo in sweep.slo_ms for fps in sweep.fps
    ]
    settings += [(mix.name, mix.slo_ms, mix.fps) for mix in sweep.mixes]
    return tuple(
        Fleet(setting, tuple(Device(n, slos[n % len(slos)], rates[n % len(rates)]) for n in range(count)))
        for count, (setting, slos, rates) in itertools.product(sweep.clients, settings)
    )


def setting_of(slo_ms: float, fps: float) -> str:
    """Name of a setting in which all devices want the same."""
    return f"slo-{slo_ms:g}_fps-{fps:g}"


def expand(sweep: Sweep, given: Sequence[Fleet] | None = None) -> tuple[Run, ...]:
    """All runs, in an order that finishes whole repetitions first, so that an interrupted sweep is usable.

    Args:
        sweep: the matrix.
        given: fleets in place of the matrix's own (Jellyfish's client configurations).
    """
    runs = []
    chosen = fleets(sweep) if given is None else given
    for repetition, trace, policy, source, fleet in itertools.product(
        range(sweep.repetitions), sweep.traces, sweep.policies, sweep.sources, chosen
    ):
        name = PurePosixPath(
            slug(trace),
            slug(policy),
            f"clients-{len(fleet.devices)}_{fleet.setting}_{slug(source)}",
            f"iter-{repetition}",
        )
        seed = sweep.seed + 1000 * repetition
        runs.append(Run(str(name), fleet.setting, fleet.devices, source, trace, policy, repetition, seed))
    if len({run.name for run in runs}) != len(runs):
        twice = sorted({run.name for run in runs if [one.name for one in runs].count(run.name) > 1})
        raise ConfigError(
            f"two runs of the sweep have the same name, {twice[0]}; name every value once, and give sources and traces "
            "files with names of their own"
        )
    return tuple(runs)


def slug(text: str) -> str:
    """A path-safe name of a source or trace: the stem of a file, other characters replaced."""
    stem = Path(text).stem if "/" in text else text
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-") or "x"


def share(devices: Sequence[Device], machines: Sequence[str]) -> dict[str, tuple[Device, ...]]:
    """Devices per label of a client machine: where they belong, the others dealt in turn so that loads are equal.

    Raises:
        ConfigError: a device belongs to a machine that is not there.
    """
    dealt: dict[str, list[Device]] = {label: [] for label in machines}
    turn = itertools.cycle(machines)
    for device in devices:
        label = device.machine or next(turn)
        if label not in dealt:
            raise ConfigError(f"device {device.client_id} belongs to '{label}'; machines: {', '.join(machines)}")
        dealt[label].append(device)
    return {label: tuple(mine) for label, mine in dealt.items()}


def duration_s(sweep: Sweep, runs: int) -> float:
    """How long so many runs take when none is repeated."""
    return runs * (sweep.warmup_s + sweep.seconds + OVERHEAD_S)


def split_words(text: str) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(word for word in text.split(",") if word)


def read_sweep(path: Path | None, overrides: dict[str, object]) -> Sweep:
    """A sweep from a TOML file and command-line values.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    return load(Sweep, file=path, overrides=overrides)
