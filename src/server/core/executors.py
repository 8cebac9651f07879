"""Executors: which are up, which frames each holds, and what becomes of these when one dies or hangs."""

from __future__ import annotations

from moonjelly.planning.problem import Assignment
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_S, ms_to_ns
from server import ipc
from server.core import events as ev
from server.core.answers import Answers
from server.core.devices import DeviceState
from server.core.frames import PendingFrame
from server.core.plans import Plans
from server.core.state import State

HANG_NS = 10 * NS_PER_S
"""A device that holds a frame for so long after its deadline hangs. Until then a dispatcher may have its reasons."""
LOOK_AGAIN_NS = NS_PER_S
"""Between the two looks that the verdict takes: a host that was suspended has not read what its executors answered."""


class Executors:
    """The process behind each device."""

    def __init__(self, state: State, plans: Plans, answers: Answers) -> None:
        self._rules = state.settings.rules
        self._configured_speeds = state.settings.speeds
        self._devices = state.devices
        self._frames = state.frames
        self._planning = state.planning
        self._out = state.out
        self._plans = plans
        self._answers = answers

    def up(self, event: ev.DeviceUp, now_ns: int) -> None:
        """It takes frames; one that comes back is told what it is to run."""
        device = self._devices[event.device]
        device.kind, device.up = event.kind, True
        device.speed = self._configured_speeds[event.device]
        device.running = (event.group, 0)
        wanted = device.assignment
        device.assignment = wanted or Assignment(device.device_id, event.group, 0, 1)
        if wanted is not None:
            self._plans.tell(device)
        self._planning.want("device up")

    def down(self, event: ev.DeviceDown, now_ns: int) -> None:
        """Its running batch is lost; its other frames move."""
        device = self._devices[event.device]
        device.up = False
        held, device.frames = device.frames, {}
        for slot, key in held.items():
            pending = self._frames.settle(key)
            device.pool.free(slot)
            if pending is None or pending.answered:
                continue
            if slot in event.running:
                reason = f"device {device.device_id} died with it: {event.reason}"
                self._answers.answer(pending, Outcome.FAILED, reason, now_ns)
            else:
                self._move(pending, device, now_ns)
        self._planning.want("device down")

    def switched(self, event: ev.VariantSwitched, now_ns: int) -> None:
        """It runs another variant."""
        switched = event.switched
        self._devices[switched.device].running = (switched.group, switched.variant)

    def measured(self, event: ev.SpeedMeasured, now_ns: int) -> None:
        """It is slower, and the plan in force promises too much; or faster, which waits for the next plan."""
        device = self._devices[event.measured.device]
        if event.measured.speed < device.speed:
            self._planning.want("speed")
        device.speed = event.measured.speed

    def give(self, pending: PendingFrame, device: DeviceState, now_ns: int) -> ipc.Submit:
        """Take one of the device's slots for a frame; what its executor is told. There must be a free one."""
        slot = device.pool.take()
        assert slot is not None, "checked before"
        pending.slot, pending.device = slot, device.device_id
        pending.run_by_ns = pending.deadline_ns - device.responses.ns
        device.frames[slot] = pending.key
        self._frames.add(pending)
        return ipc.Submit(
            key=pending.key,
            slot=slot,
            length=pending.size_bytes,
            session=pending.session_id,
            frame_id=pending.frame_id,
            group=pending.group,
            width=pending.width,
            height=pending.height,
            given_ns=now_ns,
            deadline_ns=pending.run_by_ns,
        )

    def other(self, group: str, device: DeviceState) -> DeviceState | None:
        """The device of the group with the fewest frames, if any but ``device`` is up."""
        others = [one for one in self._devices if one.up and one is not device and one.running[0] == group]
        return min(others, key=lambda one: (len(one.frames), one.device_id), default=None)

    def restart_hanging(self, now_ns: int) -> None:
        """Have each executor replaced that holds a frame far beyond its deadline."""
        for device in self._devices:
            held = (self._frames.get(key) for key in device.frames.values())
            if not (device.up and any(one is not None and now_ns - one.deadline_ns > HANG_NS for one in held)):
                device.hangs_since_ns = None
            elif device.hangs_since_ns is None:
                device.hangs_since_ns = now_ns
            elif now_ns - device.hangs_since_ns >= LOOK_AGAIN_NS:
                reason = f"it holds a frame whose deadline passed more than {HANG_NS / NS_PER_S:.0f} s ago"
                self._out.append(ev.RestartDevice(device.device_id, reason))

    def _move(self, pending: PendingFrame, dead: DeviceState, now_ns: int) -> None:
        """Give a frame that had not started to another device, if it still can make it there."""
        other = self.other(pending.group, dead)
        if other is None or not len(other.pool):
            reason = f"device {dead.device_id} died and no other can take it"
            self._answers.answer(pending, Outcome.FAILED, reason, now_ns)
            return
        profile = self._rules.profiles[other.kind, pending.group]
        needed_ns = ms_to_ns(profile.latency(other.running[1], 1, other.speed))
        if now_ns + needed_ns > pending.deadline_ns:
            reason = f"device {dead.device_id} died and the others cannot finish it in time"
            self._answers.answer(pending, Outcome.FAILED, reason, now_ns)
            return
        dead_slot = pending.slot
        submit = self.give(pending, other, now_ns)
        self._out.append(ev.MoveFrame(dead.device_id, dead_slot, other.device_id, submit))
