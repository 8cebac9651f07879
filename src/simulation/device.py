"""One simulated device: a deadline queue, a dispatcher, and batches that take what the profile says.

All variants are loaded, so it changes between batches without a pause, as a live device does within its neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from moonjelly.dispatching import DeadlineQueue, DevicePlan, Dispatcher, Drop, QueuedFrame, Run, WaitUntil
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
        low: smallest share; shares are uniform up to 1, as repeated runs of one batch on a GPU are.
    """

    def __init__(self, rng: np.random.Generator, low: float = 0.96) -> None:
        self._rng = rng
        self._low = low
        self._shares: list[float] = []

    def draw_ns(self, profiled_ns: int) -> int:
        """One batch's time."""
        if not self._shares:
            self._shares = self._rng.uniform(self._low, 1.0, _DRAWN_AHEAD).tolist()
        return round(profiled_ns * self._shares.pop())


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
    ) -> None:
        self.device_id = device_id
        self.plan = plan
        self._dispatcher = dispatcher
        self._times = times
        self._names = variant_names
        self._agenda = agenda
        self._settled = settled
        self._record = record
        self._queue = DeadlineQueue()
        self._frames: dict[int, Frame] = {}
        self._running: tuple[QueuedFrame, ...] = ()
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
        self.plan = plan
        self.step(now_ns)

    def woken(self, number: int, now_ns: int) -> None:
        """A wake-up; outdated ones do nothing."""
        if number == self._wake_number:
            self._wake_ns = None
            self.step(now_ns)

    def batch_ended(self, now_ns: int) -> None:
        """The running batch is done."""
        running, self._running, self._busy_until_ns = self._running, (), None
        frames = [self._frames.pop(queued.key) for queued in running]
        for frame in frames:
            frame.ended_ns = now_ns
        self._dispatcher.finished(now_ns, running)
        self._settled(frames)
        self.step(now_ns)

    def step(self, now_ns: int) -> None:
        """Decide until there is nothing to do but wait."""
        while True:
            decision = self._dispatcher.decide(now_ns, self._queue, self.plan, self._busy_until_ns)
            if isinstance(decision, WaitUntil):
                self._sleep_until(decision.instant_ns)
                return
            self._log(decision, now_ns)
            self._queue.take(decision.frames)
            if isinstance(decision, Drop):
                for queued in decision.frames:
                    self._frames[queued.key].ended_ns = now_ns
                self._settled([self._frames.pop(queued.key) for queued in decision.frames], dropped=decision.reason)
            else:
                self._start(decision, now_ns)

    def _start(self, run: Run, now_ns: int) -> None:
        profiled_ns = self.plan.latency_ns[run.variant][run.padded_batch - 1]
        self._running = run.frames
        self._busy_until_ns = now_ns + profiled_ns
        for queued in run.frames:
            frame = self._frames[queued.key]
            frame.started_ns, frame.used_variant, frame.batch = now_ns, run.variant, len(run.frames)
        self._agenda.add(now_ns + self._times.draw_ns(profiled_ns), BatchEnded(self.device_id))

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
            )
        )
