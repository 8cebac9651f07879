"""What a server can be told: TOML file < environment (``MOONJELLY_SERVER_*``) < command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from moonjelly import dispatching, planning
from moonjelly.config import Options
from moonjelly.errors import ConfigError
from moonjelly.latency_factor import SAFE
from moonjelly.planning.cadence import INTERVAL_NS
from moonjelly.planning.head_room import DEFAULT_RHO
from moonjelly.types import DEFAULT_GROUP
from moonjelly.units import NS_PER_S

ENVIRONMENT_PREFIX = "MOONJELLY_SERVER_"
DEFAULT_PORT = 10_001
MAX_SESSIONS = 4096

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, lt=float("inf"))]
_DAY_S = 86_400.0
Seconds = Annotated[float, Field(gt=0.0, le=_DAY_S)]


class ServerOptions(Options):
    """Options of one server.

    Attributes:
        zoo: zoos as ``NAME``, ``DIRECTORY`` or ``GROUP=ZOO``; one per model group.
        devices: executors to start; 0: one per GPU, or one where there is none.
        runtime: ``auto``, ``torch``, ``onnx`` or ``simulated``.
        kind: device kind that simulated devices behave like; empty: the zoo's first.
        scale: factor on a simulated device's latencies; 0 answers at once, to measure what is around it.
        answers: what simulated devices answer with, as ``PLACE`` or ``GROUP=PLACE`` (see
            :mod:`moonjelly.inference.recorded`); groups without one answer with synthetic boxes.
        speeds: factor on the profile per device; missing ones are 1.
        threads: that a CPU device computes with.
        decoders: threads per device that decode and preprocess.
        host: address to listen on.
        port: 0 lets the system choose.
        policy: planning policy.
        dispatcher: batch policy.
        interval_s: between planning runs.
        plan_budget_s: after which the fallback plan is used.
        resident: variants that stay loaded on a device around the active one; 0: all that fit into memory.
        max_batch: largest batch.
        rho: share of a device's throughput that may be planned, more of it where batches are long.
        latency_factor: batches that a frame waits for, its own included; ``None``, written ``auto``: as few as keep
            what plans promise (:mod:`moonjelly.latency_factor`), but 2 for policies that stand for published systems.
        token: clients must present it; empty: none.
        tls_cert: PEM certificate chain; with ``tls_key``.
        tls_key: PEM private key.
        out: where logs and ``summary.json`` go.
        seed: of everything drawn.
        session_ttl_s: how long a lost session may be resumed.
        max_sessions: clients at a time; a plan for all of them must fit into one message (:mod:`server.capacity`).
        max_frame_bytes: of one encoded frame.
        max_pixels: of one picture.
        max_outstanding: frames of one client that may wait for their result.
        slots: frames that one device may hold.
        grace_s: what streams get to end when the server stops.
    """

    zoo: tuple[str, ...] = ("synthetic",)
    devices: Annotated[int, Field(ge=0, le=64)] = 0
    runtime: str = "auto"
    kind: str = ""
    scale: Annotated[float, Field(ge=0.0, lt=float("inf"))] = 1.0
    answers: tuple[str, ...] = ()
    speeds: tuple[Positive, ...] = ()
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT
    policy: str = planning.DEFAULT_POLICY
    dispatcher: str = dispatching.DEFAULT
    interval_s: Seconds = INTERVAL_NS / NS_PER_S
    plan_budget_s: Seconds = 0.25
    resident: Annotated[int, Field(ge=0)] = 0
    max_batch: Annotated[int, Field(ge=1, le=256)] = 12
    rho: Fraction = DEFAULT_RHO
    latency_factor: Positive | None = SAFE
    token: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    out: Path = Path("logs/server")
    seed: Annotated[int, Field(ge=0)] = 0
    session_ttl_s: Seconds = 30.0
    max_sessions: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = 256
    max_frame_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 2 << 20
    max_pixels: Annotated[int, Field(ge=1)] = 16 << 20
    max_outstanding: Annotated[int, Field(ge=1, le=1024)] = 32
    slots: Annotated[int, Field(ge=1, le=65_536)] = 256
    grace_s: Annotated[float, Field(ge=0.0, le=_DAY_S)] = 3.0

    @field_validator("zoo", "answers", "speeds", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """The environment gives lists as text."""
        return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value

    @field_validator("latency_factor", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return None if value == "auto" else float(value)
        except ValueError:
            raise ValueError("a positive number (2 is usual) or auto") from None

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        try:
            planning.create_policy(value)
        except ConfigError as fault:
            raise ValueError(str(fault)) from None
        return value

    @field_validator("dispatcher")
    @classmethod
    def _known_dispatcher(cls, value: str) -> str:
        if value not in dispatching.names():
            raise ValueError(f"allowed: {', '.join(dispatching.names())}")
        return value

    @model_validator(mode="after")
    def _tls_pair(self) -> ServerOptions:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or neither")
        return self

    @model_validator(mode="after")
    def _groups(self) -> ServerOptions:
        groups = [group for group, _ in _by_group(self.zoo)]
        if not groups:
            raise ValueError("zoo is empty; name one")
        if len(set(groups)) != len(groups):
            raise ValueError(f"two zoos for one group among {', '.join(self.zoo)}; write GROUP=ZOO")
        return self

    @model_validator(mode="after")
    def _answers_of_groups(self) -> ServerOptions:
        if self.answers and self.runtime != "simulated":
            raise ValueError(
                f"answers are for simulated devices and the runtime is '{self.runtime}'; add runtime simulated"
            )
        groups = [group for group, _ in _by_group(self.answers)]
        if unknown := [group for group in groups if group not in self.zoos]:
            raise ValueError(f"answers for group '{unknown[0]}', which has no zoo; groups: {', '.join(self.zoos)}")
        if len(set(groups)) != len(groups):
            raise ValueError(f"two answers for one group among {', '.join(self.answers)}; write GROUP=PLACE")
        return self

    @property
    def zoos(self) -> dict[str, str]:
        """Group to zoo."""
        return dict(_by_group(self.zoo))

    @property
    def answer_places(self) -> dict[str, str]:
        """Group to the file or folder of its recorded answers."""
        return {group: str(Path(place).expanduser().absolute()) for group, place in _by_group(self.answers)}

    @property
    def fixed_factor(self) -> float | None:
        """The latency factor of all plans; ``None``: it is found."""
        return SAFE if self.latency_factor is None and planning.keeps_factor(self.policy) else self.latency_factor

    def speed_of(self, device: int) -> float:
        """Factor on the profile of one device."""
        return self.speeds[device] if device < len(self.speeds) else 1.0


def _by_group(entries: Sequence[str]) -> list[tuple[str, str]]:
    """Group and the rest of ``GROUP=REST``; an entry without a group is the default group's."""
    pairs = []
    for entry in entries:
        group, separator, rest = entry.partition("=")
        pairs.append((group, rest) if separator and os.sep not in group else (DEFAULT_GROUP, entry))
    return pairs
