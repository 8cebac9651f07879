"""One simulated device: a deadline queue, a dispatcher, and batches that take what the profile says.

All variants are loaded, so it changes between batches without a pause, as a live device does within its neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from moonjelly import latency_factor
from moonjelly.device_speed import PROFILED, DeviceSpeed, observe, recovered
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Dispatcher, Drop, QueuedFrame, Run, WaitUntil
from moonjelly.tail import NO_TAIL
from moonjelly.telemetry import DispatchRow
from moonjelly.units import NS_PER_MS
from simulation.events import Agenda, BatchEnded, DeviceWoken, Frame

_DRAWN_AHEAD = 1024


class Settled(Protocol):
    """Called with frames that a device is done with."""

    def __call__(self, frames: list[Frame], *, dropped: str = "") -> None:
        """``dropped`` says why, when they did not run."""
        ...


class InferenceTimes:
    """Draws how long a batch takes as a share of the profiled percentile.

    Args:
        rng: source.
        latency_ns: ``(M, B)``; profiled time of every variant at every batch size on the device.
        speed_at: what is left of the device's speed at an instant.
        low: smallest share; shares are uniform up to 1, as repeated runs of one batch on a GPU are.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        latency_ns: Sequence[Sequence[int]],
        speed_at: Callable[[int], float],
        low: float = 0.96,
    ) -> None:
        self._rng = rng
        self._latency_ns = latency_ns
        self._speed_at = speed_at
        self._low = low
        self._shares: list[float] = []

    def profiled_ns(self, run: Run) -> int:
        """A batch's time by the profile."""
        return self._latency_ns[run.variant][run.padded_batch - 1]

    def draw_ns(self, run: Run, now_ns: int) -> int:
        """The time of a batch that begins at ``now_ns``."""
        if not self._shares:
            self._shares = self._rng.uniform(self._low, 1.0, _DRAWN_AHEAD).tolist()
        return round(self.profiled_ns(run) * self._shares.pop() / self._speed_at(now_ns))


class SimulatedDevice:
    """Carries out what its dispatcher decides.

    Args:
        device_id: of the plan.
        dispatcher: its own.
        plan: what it runs first.
        times: how long batches take.
        agenda: where it puts its batch ends and wake-ups.
        settled: told of frames that ran or were dropped.
        record: told of every decision that ran or dropped frames.
        replan: its plan when its measured speed has changed; ``None``: it counts with its profile.
    """

    def __init__(
        self,
        device_id: int,
        dispatcher: Dispatcher,
        plan: DevicePlan,
        times: InferenceTimes,
        variant_names: tuple[str, ...],
        agenda: Agenda,
        settled: Settled,
        record: Callable[[DispatchRow], None],
        replan: Callable[[int, float], DevicePlan] | None = None,
    ) -> None:
        self.device_id = device_id
        self.plan = plan
        self._dispatcher = dispatcher
        self._times = times
        self._names = variant_names
        self._agenda = agenda
        self._settled = settled
        self._record = record
        self._replan = replan
        self._measured = PROFILED
        self._overruns = NO_TAIL
        self._queue = DeadlineQueue()
        self._frames: dict[int, Frame] = {}
        self._running: Run | None = None
        self._started_ns = 0
        self._expected_ns = 0
        self._busy_until_ns: int | None = None
        self._wake_ns: int | None = None
        self._wake_number = 0

    def queue(self, frame: Frame, now_ns: int) -> None:
        """Take a decoded frame."""
        frame.queued_ns = now_ns
        self._frames[frame.key] = frame
        self._queue.push(QueuedFrame(frame.key, frame.deadline_ns, now_ns, frame.client_id))
        self.step(now_ns)

    def follow(self, plan: DevicePlan, now_ns: int) -> None:
        """Run by ``plan`` from the next decision on."""
        self.plan = plan if self._replan is None else plan.with_reserve(self._overruns)
        self.step(now_ns)

    def woken(self, number: int, now_ns: int) -> None:
        """A wake-up; outdated ones do nothing."""
        if number == self._wake_number:
            self._wake_ns = None
            self.step(now_ns)

    def batch_ended(self, now_ns: int) -> None:
        """The running batch is done."""
        run, self._running, self._busy_until_ns = self._running, None, None
        assert run is not None, "a batch ends that never began"
        frames = [self._frames.pop(queued.key) for queued in run.frames]
        took_ns = now_ns - self._started_ns
        overran = took_ns > latency_factor.overrun_ns(self._expected_ns)
        for frame in frames:
            frame.ended_ns = now_ns
            if frame.kept:
                frame.kept = now_ns <= frame.deadline_ns and not overran
        self._dispatcher.finished(now_ns, run.frames)
        self._settled(frames)
        self._overruns = self._overruns.after(took_ns - self._expected_ns)
        self._rate(observe(self._measured, now_ns, took_ns, self._times.profiled_ns(run)))
        self.step(now_ns)

    def step(self, now_ns: int) -> None:
        """Decide until there is nothing to do but wait."""
        self._rate(recovered(self._measured, now_ns))
        while True:
            decision = self._dispatcher.decide(now_ns, self._queue, self.plan, self._busy_until_ns)
            if isinstance(decision, WaitUntil):
                due_ns = (decision.instant_ns, self._measured.recovers_ns)
                self._sleep_until(min((instant for instant in due_ns if instant is not None), default=None))
                return
            self._log(decision, now_ns)
            self._queue.take(decision.frames)
            self._judge(decision)
            if isinstance(decision, Drop):
                for queued in decision.frames:
                    self._frames[queued.key].ended_ns = now_ns
                self._settled([self._frames.pop(queued.key) for queued in decision.frames], dropped=decision.reason)
            else:
                self._start(decision, now_ns)

    def _judge(self, decision: Run | Drop) -> None:
        """Note which frames run as planned, of those that came with time enough for that."""
        planned = self.plan.variant
        needed_ns = self.plan.latency_ns[planned][self.plan.batch - 1]
        as_planned = isinstance(decision, Run) and decision.variant >= planned
        for queued in decision.frames:
            if queued.deadline_ns - queued.arrived_ns >= needed_ns:
                self._frames[queued.key].kept = as_planned

    def _start(self, run: Run, now_ns: int) -> None:
        self._running, self._started_ns = run, now_ns
        self._expected_ns = self.plan.latency_ns[run.variant][run.padded_batch - 1]
        self._busy_until_ns = now_ns + self._expected_ns
        for queued in run.frames:
            frame = self._frames[queued.key]
            frame.started_ns, frame.used_variant, frame.batch = now_ns, run.variant, len(run.frames)
        self._agenda.add(now_ns + self._times.draw_ns(run, now_ns), BatchEnded(self.device_id))

    def _rate(self, measured: DeviceSpeed) -> None:
        if self._replan is None:
            return
        changed = measured.steps != self._measured.steps
        self._measured = measured
        plan = self._replan(self.device_id, measured.speed) if changed else self.plan
        self.plan = plan.with_reserve(self._overruns)

    def _sleep_until(self, instant_ns: int | None) -> None:
        if instant_ns != self._wake_ns:
            self._wake_ns = instant_ns
            self._wake_number += 1
            if instant_ns is not None:
                self._agenda.add(instant_ns, DeviceWoken(self.device_id, self._wake_number))

    def _log(self, decision: Run | Drop, now_ns: int) -> None:
        head = self._queue.head()
        ran = isinstance(decision, Run)
        variant = decision.variant if isinstance(decision, Run) else self.plan.variant
        batch = decision.padded_batch if isinstance(decision, Run) else 1
        self._record(
            DispatchRow(
                ts=now_ns,
                gpu_number=self.device_id,
                variant=self._names[variant],
                planned_batch=self.plan.batch,
                queue=len(self._queue),
                batch=len(decision.frames) if ran else 0,
                dropped=0 if ran else len(decision.frames),
                head_slack=(head.deadline_ns - now_ns) / NS_PER_MS if head else 0.0,
                infer_ms=self.plan.latency_ns[variant][batch - 1] / NS_PER_MS if ran else 0.0,
                planned_variant=self._names[self.plan.variant],
                fallbacks=" ".join(self._names[variant] for variant in self.plan.fallbacks),
                speed=self.plan.speed,
                reserve_ms=self.plan.reserve_ns / NS_PER_MS,
            )
        )
