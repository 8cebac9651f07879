"""A recorded run through the same engine: the same decisions, and predicted against measured latency.

First the decisions: the queue of each device and group is rebuilt from ``frame_stats.csv`` (when a frame entered, its
deadline), and at each instant of ``dispatch.csv`` the dispatcher is asked again. Frames that the plan or their client
withdrew leave as recorded: no dispatcher was asked. Then the prediction: the recorded arrivals meet a simulated device
that takes the profile's times, and the time from queue to answer is compared with what was measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from moonjelly import dispatching
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Dispatcher, Drop, QueuedFrame, Run
from moonjelly.errors import MoonjellyError
from moonjelly.profiles import Profile
from moonjelly.telemetry import DispatchRow, ServerFrameRow, read_rows
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_MS, ClientInstant, ServerInstant, ms_to_ns
from simulation import events
from simulation.device import InferenceTimes, SimulatedDevice
from simulation.events import Agenda, Frame

PERCENTILES = (50, 90, 99)
_ROUNDING_NS = (0, -1, 1)
"""What the way through ms does to an instant."""


class ReplayError(MoonjellyError):
    """A recording that cannot be replayed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Recording:
    """What a server logged.

    Attributes:
        frames: that entered a queue, in that order.
        decisions: in order.
    """

    frames: tuple[ServerFrameRow, ...]
    decisions: tuple[DispatchRow, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A decision that came out differently."""

    ts: int
    device: int
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """All decisions of a recording, asked again."""

    decisions: int
    mismatches: tuple[Mismatch, ...]

    @property
    def share(self) -> float:
        """Of identical decisions; 1 when there was none to take."""
        return 1.0 - len(self.mismatches) / self.decisions if self.decisions else 1.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """Time from queue to answer of the frames that ran, and how many did not.

    Attributes:
        ms: percentile to ms; empty when none ran.
    """

    ran: int
    dropped: int
    ms: Mapping[int, float]


def read_recording(folder: Path) -> Recording:
    """Read ``dispatch.csv`` and ``frame_stats.csv`` of a server.

    Raises:
        ReplayError: a file is missing or not such a log, or the frames lack what replay needs.
    """
    try:
        frames = list(read_rows(folder / "frame_stats.csv", ServerFrameRow))
        decisions = list(read_rows(folder / "dispatch.csv", DispatchRow))
        overdue = _overdue(decisions)
    except (OSError, ValueError) as fault:
        raise ReplayError(f"{folder} cannot be replayed: {fault}; give the folder of a server's logs") from None
    frames = [
        overdue[row.client_id, row.frame_id].of(row) if (row.client_id, row.frame_id) in overdue else row
        for row in frames
    ]
    queued = [row for row in frames if row.queued_ts is not None and row.deadline_ts is not None and not _broken(row)]
    if not queued or not decisions:
        raise ReplayError(f"{folder} holds {len(queued)} queued frames and {len(decisions)} decisions: nothing to do")
    return Recording(
        tuple(sorted(queued, key=lambda row: row.queued_ts or 0)),
        tuple(sorted(decisions, key=lambda row: row.ts)),
    )


def ask_again(recording: Recording, profiles: Mapping[str, Profile], dispatcher: str) -> Agreement:
    """Take every recorded decision again.

    Args:
        recording: of any number of model groups.
        profiles: group to the profile that the server's dispatcher worked with.
        dispatcher: name.

    Raises:
        ReplayError: the recording names a group or a variant without a profile.
    """
    mismatches: list[Mismatch] = []
    plans = _plans_of(recording, profiles)
    for device in sorted({row.gpu_number for row in recording.decisions}):
        frames = [row for row in recording.frames if row.gpu_number == device]
        decisions = [row for row in recording.decisions if row.gpu_number == device]
        mismatches.extend(_ask_device(frames, decisions, plans, dispatching.create(dispatcher)))
    return Agreement(sum(row.planned_batch > 0 for row in recording.decisions), tuple(mismatches))


def measured(recording: Recording) -> Distribution:
    """What the recording says."""
    ran = [row for row in recording.frames if row.batch > 0]
    times = [row.waiting_time + row.prediction_time for row in ran]
    dropped = sum(row.outcome is Outcome.DROPPED and not row.batch for row in recording.frames)
    return _distribution(times, dropped)


def predicted(
    recording: Recording, profiles: Mapping[str, Profile], dispatcher: str, typical_share: float, seed: int
) -> Distribution:
    """What a simulated device makes of the recorded arrivals.

    A device that served several groups is simulated once per group, as if it had been free for that one alone.

    Args:
        recording: of any number of model groups.
        profiles: group to the percentile that the dispatcher works with.
        dispatcher: name.
        typical_share: median inference time over the profile's percentile.
        seed: of the inference times.

    Raises:
        ReplayError: the recording names a group or a variant without a profile.
    """
    tally = _Tally([])
    plans = _plans_of(recording, profiles)
    for device, group in sorted({(row.gpu_number, row.group) for row in recording.frames}):
        frames = [row for row in recording.frames if (row.gpu_number, row.group) == (device, group)]
        decisions = [row for row in recording.decisions if (row.gpu_number, row.group) == (device, group)]
        withdrawn = _withdrawn(frames, decisions)
        tally.dropped += len(withdrawn)
        decisions = [row for row in decisions if row.planned_batch]
        if not decisions:
            continue
        agenda = Agenda()
        simulated = SimulatedDevice(
            device,
            dispatching.create(dispatcher),
            plans[group].of(decisions[0]),
            InferenceTimes(
                np.random.default_rng([seed, device]),
                DevicePlan.of(profiles[group], 0, 1).latency_ns,
                partial(_recorded_speed, decisions),
                max(0.0, 2.0 * typical_share - 1.0),
            ),
            tuple(variant.name for variant in profiles[group].variants),
            agenda,
            tally,
            lambda row: None,
        )
        stayed = [row for key, row in enumerate(frames) if key not in withdrawn]
        _run_device(simulated, stayed, decisions, plans[group], agenda)
    return _distribution(tally.times_ms, tally.dropped)


@dataclass(slots=True)
class _Tally:
    """Collects what a simulated device settles."""

    times_ms: list[float]
    dropped: int = 0

    def __call__(self, frames: list[Frame], *, dropped: str = "") -> None:
        if dropped:
            self.dropped += len(frames)
        else:
            self.times_ms.extend((frame.ended_ns - (frame.queued_ns or 0)) / NS_PER_MS for frame in frames)


class _Plans:
    """Device plans as a recording names them."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._index = {variant.name: index for index, variant in enumerate(profile.variants)}
        self._made: dict[tuple[str, int, str, float, float], DevicePlan] = {}

    def of(self, row: DispatchRow) -> DevicePlan:
        """What the device was to run at a decision."""
        planned = row.planned_variant or row.variant
        key = (planned, row.planned_batch, row.fallbacks, row.speed, row.reserve_ms)
        if key not in self._made:
            resident = [self.index(name) for name in row.fallbacks.split()]
            plan = DevicePlan.of(self._profile, self.index(planned), row.planned_batch, row.speed, resident)
            self._made[key] = replace(plan, reserve_ns=ms_to_ns(row.reserve_ms))
        return self._made[key]

    def index(self, name: str) -> int:
        """Of a variant.

        Raises:
            ReplayError: the profile does not have it.
        """
        if name not in self._index:
            raise ReplayError(
                f"the recording used '{name}', the profile of '{self._profile.device_kind}' has "
                f"{', '.join(self._index)}; name the zoo that the server served"
            )
        return self._index[name]

    def name(self, index: int) -> str:
        """Of the variant at ``index``."""
        return self._profile.variants[index].name


def _plans_of(recording: Recording, profiles: Mapping[str, Profile]) -> dict[str, _Plans]:
    named = {row.group for row in recording.frames} | {row.group for row in recording.decisions}
    for group in sorted(named):
        if group not in profiles:
            raise ReplayError(
                f"the recording has frames of group '{group}'; there are profiles of {', '.join(profiles)}: "
                "name the zoo of each group"
            )
    return {group: _Plans(profile) for group, profile in profiles.items()}


@dataclass(frozen=True, slots=True)
class _Overdue:
    """How a frame left its queue that had been answered at its deadline.

    Attributes:
        queued_ns: when it was ready for the queue.
        decision: that took it out.
    """

    queued_ns: int
    decision: DispatchRow

    def of(self, row: ServerFrameRow) -> ServerFrameRow:
        """The frame's row as if it had waited for the decision."""
        return replace(
            row,
            queued_ts=self.queued_ns,
            waiting_time=(self.decision.ts - self.queued_ns) / NS_PER_MS,
            prediction_time=self.decision.infer_ms,
            batch=self.decision.batch,
        )


def _overdue(decisions: Sequence[DispatchRow]) -> dict[tuple[int, int], _Overdue]:
    """By client and frame.

    Raises:
        ValueError: a cell that does not name frames.
    """
    found = {}
    for row in decisions:
        for cell in row.overdue.split():
            client_id, frame_id, queued_ns = map(int, cell.split(":"))
            found[client_id, frame_id] = _Overdue(queued_ns, row)
    return found


def _broken(row: ServerFrameRow) -> bool:
    """Whether the frame failed before it entered a queue."""
    return row.outcome is Outcome.FAILED and not row.batch


def _withdrawn(frames: Sequence[ServerFrameRow], decisions: Sequence[DispatchRow]) -> dict[int, int]:
    """Index of each frame that left the queue without a decision, and when."""
    instants = {(row.group, row.ts) for row in decisions if not row.planned_batch}
    return {
        key: left_ns
        for key, row in enumerate(frames)
        if row.outcome is Outcome.DROPPED and not row.batch
        for left_ns in (_left_ns(row) + slip_ns for slip_ns in _ROUNDING_NS)
        if (row.group, left_ns) in instants
    }


def _ask_device(
    frames: Sequence[ServerFrameRow],
    decisions: Sequence[DispatchRow],
    plans: Mapping[str, _Plans],
    dispatcher: Dispatcher,
) -> list[Mismatch]:
    queues = {group: DeadlineQueue() for group in plans}
    waiting: dict[int, ServerFrameRow] = {}
    withdrawn = _withdrawn(frames, decisions)
    coming = {group: deque(key for key, frame in enumerate(frames) if frame.group == group) for group in plans}
    mismatches = []
    for row in decisions:
        queue, ready = queues[row.group], coming[row.group]
        # A frame that was ready a moment before a decision may still have been on its way into the queue.
        while ready and len(queue) < row.queue and (frames[ready[0]].queued_ts or 0) <= row.ts:
            waiting[ready[0]] = frames[ready[0]]
            queue.push(_queued(ready[0], frames[ready.popleft()]))
        if not row.planned_batch:
            gone = [key for key in waiting if withdrawn.get(key) == row.ts]
            queue.take(_queued(key, waiting.pop(key)) for key in gone)
            continue
        decision = dispatcher.decide(row.ts, queue, plans[row.group].of(row), None)
        recorded = f"drop {row.dropped}" if row.dropped else f"run {row.batch} with {row.variant}"
        replayed = _described(decision, plans[row.group])
        if recorded == replayed and isinstance(decision, Run | Drop) and len(queue) == row.queue:
            taken = [frame.key for frame in decision.frames]
        else:
            before, now = f"{recorded} of {row.queue}", f"{replayed} of {len(queue)}"
            mismatches.append(Mismatch(row.ts, row.gpu_number, before, now))
            taken = [
                key
                for key, frame in waiting.items()
                if frame.group == row.group and _left_ns(frame) <= row.ts + NS_PER_MS
            ]
        queue.take(_queued(key, waiting.pop(key)) for key in taken)
        if isinstance(decision, Run):
            dispatcher.finished(row.ts + ms_to_ns(row.infer_ms), decision.frames)
    return mismatches


def _described(decision: dispatching.Decision, plans: _Plans) -> str:
    if isinstance(decision, Drop):
        return f"drop {len(decision.frames)}"
    if isinstance(decision, Run):
        return f"run {len(decision.frames)} with {plans.name(decision.variant)}"
    return "wait"


def _recorded_speed(decisions: Sequence[DispatchRow], now_ns: int) -> float:
    """What the device counted with at an instant."""
    return decisions[max(0, bisect_right(decisions, now_ns, key=lambda row: row.ts) - 1)].speed


def _queued(key: int, row: ServerFrameRow) -> QueuedFrame:
    return QueuedFrame(key, row.deadline_ts or 0, row.queued_ts or 0, row.client_id)


def _left_ns(row: ServerFrameRow) -> int:
    return (row.queued_ts or 0) + ms_to_ns(row.waiting_time)


def _run_device(
    device: SimulatedDevice,
    frames: Sequence[ServerFrameRow],
    decisions: Sequence[DispatchRow],
    plans: _Plans,
    agenda: Agenda,
) -> None:
    for key, row in enumerate(frames):
        agenda.add(row.queued_ts or 0, events.Decoded(_frame(key, row)))
    followed: DevicePlan | None = None
    changes = iter(decisions)
    following = next(changes, None)
    while (event := agenda.pop()) is not None:
        while following is not None and following.ts <= agenda.now_ns:
            plan = plans.of(following)
            if plan is not followed:
                followed = plan
                device.follow(plan, agenda.now_ns)
            following = next(changes, None)
        if isinstance(event, events.Decoded):
            device.queue(event.frame, agenda.now_ns)
        elif isinstance(event, events.BatchEnded):
            device.batch_ended(agenda.now_ns)
        elif isinstance(event, events.DeviceWoken):
            device.woken(event.number, agenda.now_ns)


def _frame(key: int, row: ServerFrameRow) -> Frame:
    return Frame(
        key=key,
        client_id=row.client_id,
        frame_id=row.frame_id,
        channel=0,
        captured=ClientInstant(0),
        variant=0,
        quality=0,
        size_bytes=row.request_size,
        encode_ms=0.0,
        sent=ClientInstant(0),
        bandwidth_bps=row.client_bw,
        rtt_ms=0.0,
        offset=None,
        received=ServerInstant(row.recv_ts),
        deadline_ns=row.deadline_ts or 0,
    )


def _distribution(times_ms: Sequence[float], dropped: int) -> Distribution:
    if not times_ms:
        return Distribution(0, dropped, {})
    values = np.percentile(times_ms, PERCENTILES)
    return Distribution(
        len(times_ms), dropped, {name: float(value) for name, value in zip(PERCENTILES, values, strict=True)}
    )
