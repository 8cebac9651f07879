"""The event loop of one simulated run: events in, the fleet's and the server's answers to them out.

The run ends when nothing is left to happen; each captured frame then has exactly one outcome
(:func:`moonjelly.summary.summarise` checks that).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from moonjelly import dispatching, planning
from moonjelly.adaptation import PlanView, Stream
from moonjelly.clock import Clock
from moonjelly.dispatching import DevicePlan
from moonjelly.network import ClockOffset
from moonjelly.on_hand import OnHand
from moonjelly.planning import Plan, Problem
from moonjelly.telemetry import DispatchRow, FrameRow, PlanRow, ServerFrameRow
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_S, ms_to_ns
from simulation import events
from simulation.adapters import Adapter, AdaptiveClient, JellyfishClient
from simulation.device import InferenceTimes, SimulatedDevice
from simulation.events import Agenda, Frame
from simulation.fleet import ACKNOWLEDGE_NS, Fleet, SimulatedClient
from simulation.rows import server_row
from simulation.server import SimulatedServer
from simulation.systems import System
from simulation.uplink import Uplink
from simulation.workload import ClientSpec, Workload, side_ms


@dataclass(frozen=True, slots=True)
class RunRows:
    """Everything that a run logs."""

    frames: list[FrameRow]
    server_frames: list[ServerFrameRow]
    plans: list[PlanRow]
    dispatches: list[DispatchRow]


class Engine:
    """Simulates one workload under one system.

    Args:
        workload: what.
        system: how.
        cpu_clock: measures planning for the log; nothing depends on what it says.
    """

    def __init__(self, workload: Workload, system: System, cpu_clock: Clock) -> None:
        self._workload = workload
        self._timing = workload.timing
        self._agenda = Agenda()
        self._rows = RunRows([], [], [], [])
        policy = planning.create_policy(system.policy)
        self._server = SimulatedServer(workload, system, policy, cpu_clock, self._agenda, self._rows.plans.append)
        self._profile = self._server.profile
        self._plans: dict[tuple[int, int, int, float], DevicePlan] = {}
        self._devices = [self._device(index, system) for index in range(len(workload.devices))]
        clients = {spec.client_id: self._client(spec, system) for spec in workload.clients}
        counted_ns = round(workload.warmup_s * NS_PER_S)
        self._fleet = Fleet(clients, self._profile, self._timing, counted_ns, self._agenda, self._rows.frames.append)

    def run(self) -> RunRows:
        """Simulate to the end."""
        for spec in self._workload.clients:
            self._agenda.add(spec.joins_ns, events.Joined(spec.client_id))
        while (event := self._agenda.pop()) is not None:
            self._handle(event, self._agenda.now_ns)
        self._fleet.finish()
        return self._rows

    def _handle(self, event: events.Event, now_ns: int) -> None:
        match event:
            case events.Captured():
                self._fleet.capture(event.client_id, event.frame_id, now_ns)
            case events.Encoded():
                self._fleet.send(event.frame, now_ns)
            case events.Received():
                self._receive(event.frame, now_ns)
            case events.Acknowledged():
                self._fleet.acknowledged(event.frame, now_ns)
            case events.Decoded():
                self._devices[event.frame.device].queue(event.frame, now_ns)
            case events.DeviceWoken():
                self._devices[event.device].woken(event.number, now_ns)
            case events.BatchEnded():
                self._devices[event.device].batch_ended(now_ns)
            case events.Answered():
                self._fleet.answered(event.frame, now_ns)
            case events.PingDue():
                self._fleet.ping(event.client_id, event.channel, now_ns)
            case events.PingReceived():
                self._fleet.ping_received(event, now_ns)
            case events.PongReturned():
                self._fleet.ponged(event, now_ns)
            case events.LookDue():
                self._fleet.look(event.client_id, now_ns)
            case events.ReconnectDue():
                self._fleet.try_to_open(event.client_id, now_ns)
            case events.ChannelOpened():
                self._fleet.opened(event.client_id, now_ns)
            case events.PlanDue():
                self._server.plan_due(event.number, now_ns)
            case events.PlanMade():
                self._follow(event.problem, event.plan, now_ns)
            case events.PlanHeard():
                self._fleet[event.client_id].adapter.planned(event.view)
            case events.Joined():
                self._tell(event.client_id, self._server.join(self._fleet[event.client_id].spec, now_ns), now_ns)
                self._fleet.join(event.client_id, now_ns)
            case events.Left():
                self._server.leave(event.client_id, now_ns)

    def _receive(self, frame: Frame, now_ns: int) -> None:
        if not self._fleet.reaches_server(frame):
            return
        client = self._fleet[frame.client_id]
        session = self._server.receive(frame, now_ns)
        returned_ns = client.deliver(now_ns + ACKNOWLEDGE_NS, int(client.spec.down_delay_ns[frame.frame_id]))
        if returned_ns is not None:
            self._agenda.add(returned_ns, events.Acknowledged(frame))
        if session is None or session.place.device_id is None:
            frame.outcome = Outcome.REJECTED
            frame.reason = session.place.reason if session else "the client has left"
            self._respond([frame], now_ns)
            return
        frame.device = session.place.device_id
        frame.ingest_ms = self._timing.ingest_ms
        variants = self._profile.variants
        decode_ms = side_ms(self._timing.decode_ms, variants[frame.variant].input_size, variants[-1].input_size)
        self._agenda.add(now_ns + ms_to_ns(frame.ingest_ms + decode_ms), events.Decoded(frame))

    def _settled(self, frames: list[Frame], dropped: str = "") -> None:
        now_ns = self._agenda.now_ns
        for frame in frames:
            if dropped:
                frame.outcome, frame.reason = Outcome.DROPPED, dropped
            else:
                frame.outcome = Outcome.ON_TIME if now_ns <= frame.deadline_ns else Outcome.LATE
            self._server.served(frame)
        self._respond(frames, now_ns)

    def _respond(self, frames: list[Frame], now_ns: int) -> None:
        for frame in frames:
            outcome = frame.outcome or Outcome.FAILED
            self._rows.server_frames.append(
                server_row(frame, self._profile, outcome, self._timing.respond_ms, self._server.runs)
            )
            client = self._fleet[frame.client_id]
            delay_ns = int(client.spec.down_delay_ns[frame.frame_id])
            returned_ns = client.deliver(now_ns + ms_to_ns(self._timing.respond_ms), delay_ns)
            if returned_ns is not None:
                self._agenda.add(returned_ns, events.Answered(frame))

    def _follow(self, problem: Problem, plan: Plan, now_ns: int) -> None:
        views = self._server.apply(problem, plan)
        for device, assignment in zip(self._devices, plan.assignments, strict=True):
            device.follow(self._device_plan(device.device_id, assignment.variant, assignment.batch), now_ns)
        for client_id, view in views.items():
            self._tell(client_id, view, now_ns)

    def _tell(self, client_id: int, view: PlanView, now_ns: int) -> None:
        heard_ns = self._fleet[client_id].deliver(now_ns, ms_to_ns(self._timing.rtt_ms / 2))
        if heard_ns is not None:
            self._agenda.add(heard_ns, events.PlanHeard(client_id, view))

    def _device(self, index: int, system: System) -> SimulatedDevice:
        plan = self._device_plan(index, 0, 1)
        rng = np.random.default_rng([self._workload.seed, 3, index])
        return SimulatedDevice(
            index,
            dispatching.create(system.dispatcher),
            plan,
            InferenceTimes(rng, plan.latency_ns, partial(self._workload.speed_at, index)),
            tuple(variant.name for variant in self._profile.variants),
            self._agenda,
            self._settled,
            self._rows.dispatches.append,
            self._replan if system.measures_speed else None,
        )

    def _replan(self, index: int, speed: float) -> DevicePlan:
        """What the device goes on with when it has measured its speed anew."""
        self._server.measured(index, speed, self._agenda.now_ns)
        plan = self._devices[index].plan
        return self._device_plan(index, plan.variant, plan.batch)

    def _device_plan(self, index: int, variant: int, batch: int) -> DevicePlan:
        speed = self._server.speed(index)
        key = (index, variant, batch, speed)
        if key not in self._plans:
            profile = self._workload.profiles[self._workload.devices[index][0]]
            self._plans[key] = DevicePlan.of(profile, variant, batch, speed, range(len(profile.variants)))
        return self._plans[key]

    def _client(self, spec: ClientSpec, system: System) -> SimulatedClient:
        sizes = tuple(variant.input_size for variant in self._profile.variants)
        stream = Stream(spec.slo_ms, spec.fps, sizes)
        view = PlanView(True, 0, self._profile.latency(0, 1), self._server.overhead_ms, self._server.latency_factor)
        adapter: Adapter
        if system.network == "jellyfish":
            offset = ClockOffset(-spec.clock_offset_ns, 1)
            adapter = JellyfishClient(stream, view, self._timing.rtt_ms, offset)
        else:
            adapter = AdaptiveClient(stream, view)
        rng = np.random.default_rng([self._workload.seed, 4, spec.client_id])
        return SimulatedClient(spec, adapter, Uplink(spec.trace, spec.bucket_bytes), OnHand(spec.slo_ms), rng)
