"""What a dispatcher is asked and what it may answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from moonjelly.dispatching.queue import DeadlineQueue, QueuedFrame
from moonjelly.errors import ProfileError
from moonjelly.profiles import Profile
from moonjelly.tail import Tail
from moonjelly.units import NS_PER_MS, ms_to_ns, ns_to_ms

RESERVE_STEP_NS = NS_PER_MS // 2
"""Reserves come in steps of this: what a timer adds to every batch is none."""
WORTHWHILE_GAIN = 0.97
"""A batch is large enough once it reaches this share of the device's best throughput: beyond it, every further
frame delays all others for almost nothing (on CPUs a batch of one is often enough)."""


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What the plan and the profile say about one device.

    Attributes:
        variant: index of the variant that the plan runs here.
        batch: planned batch size.
        latency_ns: ``(M, B)``; profiled latency of every variant at every batch size on this device.
        accuracy: ``(M,)``.
        useful_batch: smallest batch with nearly the best throughput, at least ``batch``.
        fallbacks: variants that are loaded too and faster than the planned one, the most accurate first.
        alone_ns: the soonest that any loaded variant answers a single frame.
        resident: variants that are loaded and may run at once, the planned one among them; ascending.
        speed: factor on the profile that ``latency_ns`` counts with.
        reserve_ns: what batches of late took beyond ``latency_ns``, now and then (:meth:`with_reserve`).
    """

    variant: int
    batch: int
    latency_ns: tuple[tuple[int, ...], ...]
    accuracy: tuple[float, ...]
    useful_batch: int
    fallbacks: tuple[int, ...]
    alone_ns: int
    resident: tuple[int, ...]
    speed: float = 1.0
    reserve_ns: int = 0

    @staticmethod
    def of(
        profile: Profile, variant: int, batch: int, speed: float = 1.0, resident: Collection[int] = ()
    ) -> DevicePlan:
        """The plan's choice on a device of ``speed`` with ``profile``.

        Args:
            profile: of the device's kind.
            variant: planned.
            batch: planned.
            speed: of the device.
            resident: variants that are loaded and may run at once; the planned one always is.

        Raises:
            ProfileError: the profile has no such variant or batch size.
        """
        if not 0 <= variant < len(profile.variants) or not 1 <= batch <= profile.max_batch:
            raise ProfileError(
                f"profile '{profile.device_kind}' has {len(profile.variants)} variants at batch sizes 1 to "
                f"{profile.max_batch}; variant {variant} at batch {batch} is not among them"
            )
        latency_ns = tuple(tuple(ms_to_ns(value / speed) for value in row) for row in profile.latency_ms)
        rates = [size / latency for size, latency in enumerate(latency_ns[variant], start=1)]
        enough = WORTHWHILE_GAIN * max(rates)
        useful = next(size for size, rate in enumerate(rates, start=1) if rate >= enough)
        faster = [other for other in resident if latency_ns[other][0] < latency_ns[variant][0]]
        fallbacks = tuple(sorted(faster, key=lambda other: (-profile.accuracy[other], latency_ns[other][0])))
        alone_ns = min(latency_ns[other][0] for other in (variant, *fallbacks))
        loaded = tuple(sorted({variant, *resident}))
        return DevicePlan(
            variant, batch, latency_ns, profile.accuracy, max(batch, useful), fallbacks, alone_ns, loaded, speed
        )

    def with_reserve(self, overruns: Tail) -> DevicePlan:
        """The same, with the reserve that batches call for that took so much longer than expected."""
        reserve_ns = overruns.ns - overruns.ns % RESERVE_STEP_NS
        return self if reserve_ns == self.reserve_ns else replace(self, reserve_ns=reserve_ns)

    @property
    def active_ns(self) -> tuple[int, ...]:
        """Latency of the planned variant by batch size."""
        return self.latency_ns[self.variant]


class Run(msgspec.Struct, frozen=True):
    """Start these frames as one batch, now.

    Attributes:
        frames: in the order in which they were chosen.
        variant: index of the variant that runs them.
        padded_batch: batch size that the device executes; more than ``len(frames)`` where a policy pads.
    """

    frames: tuple[QueuedFrame, ...]
    variant: int
    padded_batch: int


class Drop(msgspec.Struct, frozen=True):
    """Answer these frames without running them, now, and ask again.

    Attributes:
        frames: that cannot be run in time, or that the policy gives up.
        reason: in words, for the client and the log.
    """

    frames: tuple[QueuedFrame, ...]
    reason: str


class WaitUntil(msgspec.Struct, frozen=True):
    """Nothing to do until a frame arrives, a batch ends or the plan changes.

    Attributes:
        instant_ns: ask again at this instant at the latest; ``None``: no such instant.
    """

    instant_ns: int | None


Decision = Run | Drop | WaitUntil


class Dispatcher(Protocol):
    """Decides for one device. It may keep state of its own, but reads no clock and never changes the queue."""

    def decide(self, now_ns: int, queue: DeadlineQueue, plan: DevicePlan, busy_until_ns: int | None) -> Decision:
        """What to do at ``now_ns``.

        Args:
            now_ns: the present on the server's clock.
            queue: frames that wait at this device.
            plan: what the device should run.
            busy_until_ns: expected end of the running batch; ``None`` when the device is idle. A busy device is never
                told to :class:`Run`.
        """
        ...

    def finished(self, now_ns: int, frames: Sequence[QueuedFrame]) -> None:
        """A batch of ``frames`` ended at ``now_ns``."""
        ...


def forced(now_ns: int, queue: DeadlineQueue, alone_ns: int, busy_until_ns: int | None) -> Drop | WaitUntil | None:
    """The decision that leaves no choice: ``None`` when the device is idle and every frame that waits can make it.

    Frames that would end late even if they ran alone and at once (``alone_ns``) are dropped, also while a batch runs.
    """
    frames = queue.due_before(now_ns + alone_ns)
    if frames:
        return Drop(frames, f"cannot finish in time: it needs {ns_to_ms(alone_ns):.1f} ms even alone")
    if busy_until_ns is not None or not queue:
        return hopeless_from(queue, alone_ns)
    return None


def hopeless_from(queue: DeadlineQueue, alone_ns: int) -> WaitUntil:
    """The first instant at which a frame would end late even alone."""
    head = queue.head()
    return WaitUntil(None if head is None else head.deadline_ns - alone_ns + 1)
