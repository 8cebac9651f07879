"""What the core knows of each device."""

from __future__ import annotations

from dataclasses import dataclass, field

from moonjelly.planning.overhead import smoothed_ms
from moonjelly.planning.problem import Assignment
from moonjelly.tail import NO_TAIL, Tail
from moonjelly.units import ms_to_ns
from server.core.slots import SlotPool


@dataclass(slots=True)
class DeviceState:
    """One executor.

    Attributes:
        speed: factor on its profile: the configured one times what it measures of itself.
        kind: names its profile; empty until it is up.
        up: takes frames.
        assignment: what the plan says it runs.
        running: (group, variant) that it runs now.
        pool: its slots.
        overhead_ms: dispatch, decoding and answering, smoothed.
        responses: what answering alone takes.
        frames: keys of its frames by slot.
        hangs_since_ns: when it was first seen to hold a frame far beyond its deadline; ``None``: it does not.
    """

    device_id: int
    speed: float
    pool: SlotPool
    kind: str = ""
    up: bool = False
    assignment: Assignment | None = None
    running: tuple[str, int] = ("", 0)
    overhead_ms: float = 0.0
    responses: Tail = NO_TAIL
    frames: dict[int, int] = field(default_factory=dict)
    hangs_since_ns: int | None = None

    def observe(self, overhead_ms: float, respond_ms: float) -> None:
        """Take in one frame's times."""
        self.overhead_ms = smoothed_ms(self.overhead_ms, overhead_ms)
        self.responses = self.responses.after(ms_to_ns(respond_ms))
