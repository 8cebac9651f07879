"""What is simulated: devices, clients, links, and everything random about them, drawn once from a seed.

Two systems that are given the same workload meet the same frames, links and delays, so their difference is theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import ConfigError
from moonjelly.profiles import Profile
from moonjelly.units import NS_PER_MS, NS_PER_S
from network_shaping.traces import Trace

CONTENT_MEMORY = 0.98
CONTENT_SPREAD = 0.12
"""Log size of a client's frames over time: standard deviation, and correlation from one frame to the next."""
FRAME_SPREAD = 0.03
"""Standard deviation of one frame's log size about its content's."""
MAX_CLOCK_OFFSET_S = 5.0
PINGS = 256
"""Pings whose delays are drawn; after two minutes they come again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Delays beside transfer and inference, in ms.

    Attributes:
        rtt_ms: unloaded round trip.
        jitter_ms: mean of the exponential delay added to every message.
        encode_ms: at the client, for the largest input size; half of it is fixed, the rest grows with the area.
        ingest_ms: reception to the decoding pool.
        decode_ms: decode and preprocess at the largest input size, split like ``encode_ms``.
        respond_ms: end of inference to the answer on the stream.
        planning_ms: from a planning run's snapshot to its effect.
    """

    rtt_ms: float = 4.0
    jitter_ms: float = 0.3
    encode_ms: float = 4.0
    ingest_ms: float = 0.3
    decode_ms: float = 3.0
    respond_ms: float = 0.3
    planning_ms: float = 10.0


@dataclass(frozen=True, eq=False, slots=True)
class ClientSpec:
    """One client and everything random about it.

    Attributes:
        client_id: unique.
        fps: nominal frame rate.
        slo_ms: end-to-end deadline.
        trace: of its uplink, time 0 at the simulation's.
        joins_ns: when it connects.
        leaves_ns: when it captures no more.
        first_capture_ns: of frame 0.
        clock_offset_ns: client's clock less the server's.
        size_factor: ``(frames,)`` encoded size of each frame over the prior of :func:`moonjelly.network.prior_bytes`.
        up_delay_ns: ``(frames,)`` one-way delay of each frame beside its transfer.
        down_delay_ns: ``(frames,)`` one-way delay of its acknowledgement and its answer.
        ping_delay_ns: ``(PINGS, 2)`` one-way delays of a ping and of its answer, used in turn.
        outages_stop_answers: an outage of the uplink stops the way back, too, as a radio's does and the relay's; tc on
            a client machine stops only what clients send.
        bucket_bytes: that its idle uplink saves up and passes at once, as tc's does; headers included.
    """

    client_id: int
    fps: float
    slo_ms: float
    trace: Trace
    joins_ns: int
    leaves_ns: int
    first_capture_ns: int
    clock_offset_ns: int
    size_factor: NDArray[np.float64]
    up_delay_ns: NDArray[np.int64]
    down_delay_ns: NDArray[np.int64]
    ping_delay_ns: NDArray[np.int64]
    outages_stop_answers: bool = True
    bucket_bytes: int = 0

    @property
    def frames(self) -> int:
        """How many it captures."""
        return len(self.size_factor)

    def captured_ns(self, frame_id: int) -> int:
        """When it captures frame ``frame_id``."""
        return self.first_capture_ns + round(frame_id * NS_PER_S / self.fps)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A device that is slower than its profile for a while.

    Attributes:
        device: its number.
        begin_s: from the start of the run, warm-up included.
        end_s: likewise.
        speed: factor on the device's own speed meanwhile.
    """

    device: int
    begin_s: float
    end_s: float
    speed: float

    def __post_init__(self) -> None:
        if not (self.device >= 0 and 0.0 <= self.begin_s < self.end_s and 0.0 < self.speed <= 1.0):
            raise ConfigError(f"{self}: it needs a device, a begin before its end, and a speed in (0, 1]")


@dataclass(frozen=True, slots=True)
class Workload:
    """A whole run.

    Attributes:
        clients: by id.
        devices: kind and speed of each.
        profiles: by device kind; all list the same variants.
        seconds: length of the run.
        warmup_s: frames captured before are served but not counted.
        timing: delays.
        seed: of what is drawn while it runs (inference times).
        slowdowns: of devices; those of one device at one time multiply.
    """

    clients: tuple[ClientSpec, ...]
    devices: tuple[tuple[str, float], ...]
    profiles: dict[str, Profile]
    seconds: float
    warmup_s: float
    timing: Timing
    seed: int
    slowdowns: tuple[Slowdown, ...] = ()

    def speed_at(self, device: int, now_ns: int) -> float:
        """What is left of a device's speed at an instant."""
        now_s = now_ns / NS_PER_S
        mine = (one for one in self.slowdowns if one.device == device and one.begin_s <= now_s < one.end_s)
        return math.prod(one.speed for one in mine)


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """How to draw a workload.

    Attributes:
        clients: how many.
        fps: nominal rates, dealt out in turn.
        slo_ms: deadlines, dealt out in turn.
        devices: how many, all of the profile's kind.
        speeds: their speeds, dealt out in turn.
        seconds: counted length.
        warmup_s: before it.
        frame_scale: mean encoded size over Jellyfish's table (1: as large as its worst case; ordinary footage is 0.4).
        churn_per_min: clients that leave, each replaced at once by a new one, per minute.
        timing: delays.
        slowdowns: of devices.
    """

    clients: int = 4
    fps: tuple[float, ...] = (15.0,)
    slo_ms: tuple[float, ...] = (100.0,)
    devices: int = 2
    speeds: tuple[float, ...] = (1.0,)
    seconds: float = 60.0
    warmup_s: float = 5.0
    frame_scale: float = 1.0
    churn_per_min: float = 0.0
    timing: Timing = Timing()
    slowdowns: tuple[Slowdown, ...] = ()

    def __post_init__(self) -> None:
        for name in ("clients", "devices", "seconds", "frame_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"'{name}' = {getattr(self, name)}; it must be positive and finite")
        for name in ("fps", "slo_ms", "speeds"):
            values = getattr(self, name)
            if not values or not all(0 < value < math.inf for value in values):
                raise ConfigError(f"'{name}' = {values}; one or more positive numbers are needed")
        for name in ("warmup_s", "churn_per_min"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"'{name}' = {getattr(self, name)}; it must be finite and not negative")
        for one in self.slowdowns:
            if one.device >= self.devices:
                raise ConfigError(f"'slow' names device {one.device}; there are {self.devices} devices, counted from 0")


def draw(options: WorkloadOptions, trace: Trace, profile: Profile, seed: int) -> Workload:
    """Draw a workload: every client begins at its own random place of ``trace`` (as Jellyfish's do)."""
    total_s = options.warmup_s + options.seconds
    clients: list[ClientSpec] = []
    for slot in range(options.clients):
        for begin_s, end_s in _stays(options, slot, total_s, seed):
            clients.append(_client(options, len(clients), slot, (begin_s, end_s), trace, seed))
    speeds = [options.speeds[index % len(options.speeds)] for index in range(options.devices)]
    return Workload(
        clients=tuple(clients),
        devices=tuple((profile.device_kind, speed) for speed in speeds),
        profiles={profile.device_kind: profile},
        seconds=total_s,
        warmup_s=options.warmup_s,
        timing=options.timing,
        seed=seed,
        slowdowns=options.slowdowns,
    )


def _stays(options: WorkloadOptions, slot: int, total_s: float, seed: int) -> list[tuple[float, float]]:
    """Intervals of the clients that follow one another in one place."""
    rate_per_s = options.churn_per_min / 60.0 / options.clients
    rng = np.random.default_rng([seed, 1, slot])
    stays, begin_s = [], 0.0
    while begin_s < total_s:
        end_s = begin_s + rng.exponential(1.0 / rate_per_s) if rate_per_s else total_s
        stays.append((begin_s, min(end_s, total_s)))
        begin_s = end_s
    return stays


def _client(
    options: WorkloadOptions, client_id: int, slot: int, stay_s: tuple[float, float], trace: Trace, seed: int
) -> ClientSpec:
    rng = np.random.default_rng([seed, 2, client_id])
    fps = options.fps[slot % len(options.fps)]
    joins_ns, leaves_ns = (round(edge * NS_PER_S) for edge in stay_s)
    first_ns = joins_ns + round((0.1 + rng.uniform(0.0, 1.0 / fps)) * NS_PER_S)
    frames = max(0, int(np.ceil((leaves_ns - first_ns) * fps / NS_PER_S)))
    timing = options.timing
    base_ns, jitter_ns = timing.rtt_ms / 2 * NS_PER_MS, timing.jitter_ms * NS_PER_MS
    return ClientSpec(
        client_id=client_id,
        fps=fps,
        slo_ms=options.slo_ms[slot % len(options.slo_ms)],
        trace=trace.at_offset(float(rng.uniform(0.0, trace.duration_s))),
        joins_ns=joins_ns,
        leaves_ns=leaves_ns,
        first_capture_ns=first_ns,
        clock_offset_ns=round(rng.uniform(-MAX_CLOCK_OFFSET_S, MAX_CLOCK_OFFSET_S) * NS_PER_S),
        size_factor=options.frame_scale * _content(rng, frames),
        up_delay_ns=(base_ns + rng.exponential(jitter_ns, frames)).astype(np.int64),
        down_delay_ns=(base_ns + rng.exponential(jitter_ns, frames)).astype(np.int64),
        ping_delay_ns=(base_ns + rng.exponential(jitter_ns, (PINGS, 2))).astype(np.int64),
    )


def _content(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Log-normal factors with mean 1 that wander with the scene."""
    steps = rng.normal(0.0, CONTENT_SPREAD * float(np.sqrt(1.0 - CONTENT_MEMORY**2)), frames)
    level, levels = rng.normal(0.0, CONTENT_SPREAD), np.empty(frames)
    for index, step in enumerate(steps):
        level = CONTENT_MEMORY * level + step
        levels[index] = level
    variance = CONTENT_SPREAD**2 + FRAME_SPREAD**2
    return np.asarray(np.exp(levels + rng.normal(0.0, FRAME_SPREAD, frames) - variance / 2.0))


def side_ms(largest_ms: float, input_size: int, largest_size: int) -> float:
    """Time of a per-pixel step at ``input_size`` when it is ``largest_ms`` at ``largest_size``: half of it is fixed."""
    return largest_ms * (0.5 + 0.5 * (input_size / largest_size) ** 2)
