"""What a client can be told: TOML file < environment (``MOONJELLY_CLIENT_*``) < command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from client.sources import BufferStrategy
from moonjelly.config import Options
from moonjelly.types import DEFAULT_GROUP

ENVIRONMENT_PREFIX = "MOONJELLY_CLIENT_"
Positive = Annotated[float, Field(gt=0.0, lt=float("inf"))]
Rate = Annotated[float, Field(ge=0.001, lt=float("inf"))]


class ClientOptions(Options):
    """Options of one client or of a fleet.

    Attributes:
        server: ``host:port``.
        source: video file, folder or ``.txt`` list of pictures, URL or ``/dev/videoN``, ``synthetic[:SEED]``.
        clients: how many, each its own process.
        slo_ms: end-to-end deadlines, given to the clients in turn.
        fps: nominal rates, given in turn; empty: the source's own.
        seconds: how long to stream; ``None``: until stopped.
        loop: show a recording again when it ends.
        group: model group.
        name: shown by the server; empty: ``client-<id>``.
        client_id: of the first client in logs.
        seed: of the synthetic scene without a seed of its own, and of each client's phase within a frame period.
        out: where logs go.
        buffer: strategy of a live source.
        scene_seconds: length of a synthetic scene, which is then drawn beforehand and shown again and again;
            ``None``: it has no end and is drawn while it is streamed.
        pre_encoded: use this many frames of a recording, each encoded only once; 0: encode every frame.
        padded: pad every frame to the size that Jellyfish's table gives for it (:func:`moonjelly.network.prior_bytes`).
        token: the server's access token.
        root_certificates: PEM of the authority behind the server's TLS certificate.
        register_timeout_s: for the first registration.
        reconnect_s: how long a lost server is tried again.
        congestion_control: of TCP, for the connections to the server; empty: the host's.
    """

    server: Annotated[str, Field(min_length=1)] = "127.0.0.1:10001"
    source: Annotated[str, Field(min_length=1)] = "synthetic"
    clients: Annotated[int, Field(ge=1, le=256)] = 1
    slo_ms: Annotated[tuple[Positive, ...], Field(min_length=1)] = (100.0,)
    fps: tuple[Rate, ...] = ()
    seconds: Positive | None = None
    loop: bool = True
    group: str = DEFAULT_GROUP
    name: str = ""
    client_id: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    out: Path = Path("logs/client")
    buffer: BufferStrategy = BufferStrategy.LATEST
    scene_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] | None = None
    pre_encoded: Annotated[int, Field(ge=0, le=100_000)] = 0
    padded: bool = False
    token: str = ""
    root_certificates: Path | None = None
    register_timeout_s: Positive = 10.0
    reconnect_s: Positive = 300.0
    congestion_control: Annotated[str, Field(max_length=15)] = ""

    @field_validator("slo_ms", "fps", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """The environment and the command line give lists as text; a file may give one number."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return (value,) if isinstance(value, (int, float)) else value

    def camera(self, number: int) -> Camera:
        """The ``number``-th client's share of the options."""
        client_id = self.client_id + number
        source = f"synthetic:{self.seed + number}" if self.source == "synthetic" else self.source
        return Camera(
            client_id=client_id,
            name=self.name or f"client-{client_id}",
            source=source,
            slo_ms=self.slo_ms[number % len(self.slo_ms)],
            fps=self.fps[number % len(self.fps)] if self.fps else None,
        )


@dataclass(frozen=True, slots=True)
class Camera:
    """One client of a fleet.

    Attributes:
        fps: ``None``: the source's own.
    """

    client_id: int
    name: str
    source: str
    slo_ms: float
    fps: float | None
