"""What a demo runs: its options, and the clients they stand for."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from client.sources import is_scene
from moonjelly.errors import ConfigError

SLOS_MS = (75.0, 100.0, 150.0)
SCENE_S = 30.0
"""Longest synthetic scene: it is drawn before the run, and shown again in a longer one."""
RATES_FPS = (12.0, 15.0, 24.0, 29.97)


@dataclass(frozen=True)
class ClientSetting:
    """One client of the demo."""

    index: int
    slo_ms: float
    fps: float

    @property
    def name(self) -> str:
        """As in the live table and in file names."""
        return f"client-{self.index}"


@dataclass(frozen=True)
class DemoSettings:
    """Validated options of one demo run; see ``moonjelly demo --help``."""

    zoo: str
    source: str
    trace: str
    clients: int
    seconds: float
    seed: int
    out: Path
    live: bool
    policy: str

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise ConfigError(f"--clients is {self.clients}; at least 1 is needed")
        if not 0 < self.seconds <= 86_400:
            raise ConfigError(f"--seconds is {self.seconds:g}; it must be above 0 and at most a day")
        if self.out.exists() and any(self.out.iterdir()):
            raise ConfigError(f"--out {self.out} is not empty; name another folder (nothing is overwritten)")

    def client_settings(self) -> list[ClientSetting]:
        """Mixed deadlines and frame rates, in turn."""
        return [
            ClientSetting(index, SLOS_MS[index % len(SLOS_MS)], RATES_FPS[index % len(RATES_FPS)])
            for index in range(self.clients)
        ]


def default_out(now: datetime.datetime) -> Path:
    """A folder of its own for a run that started at ``now``."""
    return Path("out") / f"demo-{now:%Y%m%d-%H%M%S}"


def host_directory(out: Path, index: int) -> Path:
    """Where a client's logs go: Jellyfish's path."""
    return out / "logs" / "client" / f"host_{index}"


def source_arguments(settings: DemoSettings, one: ClientSetting) -> list[str]:
    """How a client is told what it sees. Nobody's camera draws its pictures: a scene is there before the run."""
    source = source_of(settings, one)
    drawn = ["--scene-seconds", f"{min(settings.seconds, SCENE_S):g}"] if is_scene(settings.source) else []
    return ["--source", source, *drawn]


def source_of(settings: DemoSettings, one: ClientSetting) -> str:
    """What one client sees: every client has a street of its own in the synthetic scene."""
    if settings.source == "synthetic":
        return f"synthetic:{settings.seed * 1000 + one.index}"
    return settings.source
