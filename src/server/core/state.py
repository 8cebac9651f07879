"""What the parts of the core share."""

from __future__ import annotations

from moonjelly.latency_factor import SAFE, UNKNOWN
from moonjelly.network import planned_budgets
from server.core import events as ev
from server.core.devices import DeviceState
from server.core.frames import FrameBook
from server.core.placement import bandwidth_bps, budget_of, own_ms
from server.core.planner import PlanClock
from server.core.sessions import Session, SessionTable
from server.core.settings import Settings
from server.core.slots import SlotPool


class State:
    """The server as its core knows it.

    Attributes:
        input_sizes: side in pixels per variant, by group.
        names: of the variants, by group.
        devices: by id.
        frames: on their way.
        planning: when to plan.
        promises: how devices have kept what plans promised.
        latency_factor: of the latest planning problem.
        out: what is to be done about the event at hand. One list for ever, so that each part may hold it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.input_sizes = {
            group: tuple(variant.input_size for variant in zoo.variants) for group, zoo in settings.zoos.items()
        }
        self.names = {group: tuple(variant.name for variant in zoo.variants) for group, zoo in settings.zoos.items()}
        self.sessions = SessionTable(settings.session_ttl_ns, settings.max_sessions)
        self.devices = [
            DeviceState(device_id, speed, SlotPool(settings.slots)) for device_id, speed in enumerate(settings.speeds)
        ]
        self.frames = FrameBook()
        self.planning = PlanClock(settings.interval_ns, settings.plan_budget_ns)
        self.promises = UNKNOWN
        self.latency_factor = settings.rules.latency_factor or SAFE
        self.out: list[ev.Instruction] = []

    def budget(self, session: Session) -> tuple[float, ...]:
        """Per variant, what frames of its own size leave of the client's deadline, as things are now."""
        return budget_of(session, self.input_sizes[session.group], bandwidth_bps(session), own_ms(self.devices))

    def planned_budget(self, session: Session) -> tuple[float, ...]:
        """Per variant, what planning counts with of the client's deadline, as things are now."""
        return planned_budgets(self.budget(session), self.input_sizes[session.group])
