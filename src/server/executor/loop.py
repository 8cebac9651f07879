"""The loop of one device: take work, decide, run, answer.

Invariants
* Every :class:`~server.ipc.Submit` is answered exactly once; with its answer its slot is free.
* A slot is marked as running while its frame is being decoded or is in the batch that the device infers, until it is
  answered: what kills the process is not handed to another one.
* The device changes its variant between batches only, and its group only when no frame of the old group waits.
* A frame of a group that the device neither runs nor is told to run is answered at once; one of a group that is on its
  way, when its time is over. Nothing waits in a queue that is not looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from moonjelly.device_speed import PROFILED, DeviceSpeed, observe, recovered
from moonjelly.dispatching import DeadlineQueue, DevicePlan, Dispatcher, Drop, QueuedFrame, Run
from moonjelly.errors import ExecutorError
from moonjelly.inference.protocol import Executor, FrameInput
from moonjelly.profiles import Profile
from moonjelly.rpc.boxes import pack
from moonjelly.rpc.messages import PackedDetections
from moonjelly.tail import NO_TAIL
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_S, ms_to_ns, ns_to_ms
from server import ipc
from server.arena import IDLE, RUNNING, Arena
from server.channel import Channel, PeerGone
from server.executor.intake import Closed, Intake, Loaded, Prepared
from server.executor.models import ResidentModels, qualified
from server.executor.pixels import fit

_log = logging.getLogger(__name__)
MAX_CONSECUTIVE_FAILURES = 3
GROUP_PATIENCE_NS = 5 * NS_PER_S
"""How long a frame with a distant deadline waits for its group: less than what the endpoint takes for a hang."""
NOTHING = PackedDetections(0, b"")


class ExecutorLoop:
    """Drives one device.

    Args:
        device: its id.
        executor: runs batches.
        profiles: group to profile of this device.
        speed: factor on the profiles, before anything is measured.
        arena: where the endpoint puts frames.
        active: what it serves at first; resident already.
    """

    def __init__(
        self,
        device: int,
        executor: Executor,
        profiles: Mapping[str, Profile],
        speed: float,
        dispatcher: Dispatcher,
        arena: Arena,
        channel: Channel,
        active: ipc.Serve,
    ) -> None:
        self._device = device
        self._executor = executor
        self._profiles = profiles
        self._configured_speed = speed
        self._measured = PROFILED
        self._overruns = NO_TAIL
        self._dispatcher = dispatcher
        self._arena = arena
        self._channel = channel
        self._held: dict[int, Prepared] = {}
        self._names = {
            group: tuple(qualified(group, variant).name for variant in profile.variants)
            for group, profile in profiles.items()
        }
        self._queues = {group: DeadlineQueue() for group in profiles}
        self._next: ipc.Serve | None = None
        self._failures = 0
        self._decided_ns = 0
        self._plan: DevicePlan
        self.active = active
        self._wanted = active.group
        self._follow(active)

    def run(self, intake: Intake, models: ResidentModels) -> None:
        """Until the endpoint goes.

        Raises:
            ExecutorError: the device failed several batches in a row.
        """
        handlers: dict[type, Callable[..., None]] = {
            Prepared: self._accept,
            ipc.Serve: lambda serve: self._want(serve, models),
            Loaded: self._loaded,
            ipc.Forget: self._forget,
        }
        timeout_s: float | None = None
        while True:
            for work in intake.take(timeout_s):
                if isinstance(work, Closed):
                    return
                handlers[type(work)](work)
            self._switch(models)
            timeout_s = self._decide()

    # -- work ---------------------------------------------------------------------------------------------------------

    def _accept(self, prepared: Prepared) -> None:
        submit = prepared.submit
        if prepared.error:
            self._send(self._not_run((_answer(prepared, Outcome.FAILED, prepared.error),), submit.group))
            return
        if prepared.queued_ns <= self._decided_ns:
            # It came while the last decision was made: whoever makes that again must not find it in the queue.
            prepared = msgspec.structs.replace(prepared, queued_ns=self._decided_ns + 1)
        self._held[submit.key] = prepared
        self._queues[submit.group].push(QueuedFrame(submit.key, submit.deadline_ns, prepared.queued_ns, submit.session))

    def _forget(self, forget: ipc.Forget) -> None:
        for group, queue in self._queues.items():
            now_ns, waiting = time.monotonic_ns(), len(queue)
            slack_ms = _head_slack_ms(queue, now_ns)
            gone = queue.discard_stream(forget.session)
            answers = tuple(_answer(self._held.pop(f.key), Outcome.DROPPED, "the client has gone") for f in gone)
            if answers:
                self._send(self._not_run(answers, group, waiting, slack_ms, now_ns))

    def _want(self, serve: ipc.Serve, models: ResidentModels) -> None:
        self._wanted = serve.group
        if models.is_resident(serve):
            self._next = serve
        models.request(serve)

    def _loaded(self, loaded: Loaded) -> None:
        if loaded.error:
            self._send(ipc.Trouble(self._device, loaded.error))
        elif loaded.ahead:
            self._follow(self.active)
        elif loaded.serve.plan_version >= max(self.active.plan_version, self._next.plan_version if self._next else 0):
            self._next = loaded.serve

    def _switch(self, models: ResidentModels) -> None:
        serve = self._next
        if serve is None or (serve.group != self.active.group and len(self._queues[self.active.group])):
            return
        self._next = None
        changed = (serve.group, serve.variant) != (self.active.group, self.active.variant)
        self.active = serve
        if changed:
            models.trim(serve.group, serve.variant)
        self._follow(serve)
        if changed:
            resident = tuple(sorted(self._executor.resident()))
            self._send(ipc.Switched(self._device, serve.plan_version, serve.group, serve.variant, resident))

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _decide(self) -> float | None:
        """Drop what must be dropped and run at most one batch; seconds until the next decision is due."""
        now_ns = time.monotonic_ns()
        self._rate(recovered(self._measured, now_ns))
        waiting_ns = self._turn_away(now_ns)
        queue = self._queues[self.active.group]
        while True:
            now_ns = time.monotonic_ns()
            decision = self._dispatcher.decide(now_ns, queue, self._plan, None)
            if isinstance(decision, Run):
                self._run_batch(decision, queue, now_ns)
                if queue or self._next is not None:
                    return 0.0  # what came meanwhile counts in the next decision
                return _until(waiting_ns, self._measured.recovers_ns)
            if isinstance(decision, Drop):
                self._drop(decision, queue, now_ns)
                continue
            return _until(decision.instant_ns, waiting_ns, self._measured.recovers_ns)

    def _turn_away(self, now_ns: int) -> int | None:
        """Drop frames of groups that do not run here and will not in time; when the next one's time is over."""
        instants_ns: list[int] = []
        for group, queue in self._queues.items():
            if group == self.active.group or not queue:
                continue
            if group == self._wanted:
                gone = tuple(frame for frame in queue if _give_up_ns(frame) <= now_ns)
                reason = f"device {self._device} did not come to run group '{group}' in time"
            else:
                gone = tuple(queue)
                reason = f"device {self._device} does not run group '{group}' any more: the plan has changed"
            if gone:
                waiting, slack_ms = len(queue), _head_slack_ms(queue, now_ns)
                queue.take(gone)
                answers = tuple(_answer(self._held.pop(frame.key), Outcome.DROPPED, reason) for frame in gone)
                self._send(self._not_run(answers, group, waiting, slack_ms, now_ns))
            instants_ns.extend(_give_up_ns(frame) for frame in queue)
        return min(instants_ns, default=None)

    def _drop(self, drop: Drop, queue: DeadlineQueue, now_ns: int) -> None:
        self._decided_ns = now_ns
        waiting, slack_ms = len(queue), _head_slack_ms(queue, now_ns)
        queue.take(drop.frames)
        answers = tuple(_answer(self._held.pop(f.key), Outcome.DROPPED, drop.reason) for f in drop.frames)
        self._send(self._not_run(answers, self.active.group, waiting, slack_ms, now_ns, self._plan.batch))

    def _run_batch(self, run: Run, queue: DeadlineQueue, now_ns: int) -> None:
        self._decided_ns = now_ns
        waiting, slack_ms = len(queue), _head_slack_ms(queue, now_ns)
        queue.take(run.frames)
        frames = [self._held.pop(frame.key) for frame in run.frames]
        group = self.active.group
        for frame in frames:
            self._arena.mark(frame.submit.slot, RUNNING)
        started_ns = time.monotonic_ns()
        results, error = self._infer(run, frames)
        ended_ns = time.monotonic_ns()
        self._send(
            ipc.Batch(
                device=self._device,
                group=group,
                variant=run.variant,
                planned_variant=self._plan.variant,
                fallbacks=self._others,
                planned_batch=self._plan.batch,
                queue=waiting,
                head_slack_ms=slack_ms,
                speed=self._plan.speed,
                reserve_ns=self._plan.reserve_ns,
                decided_ns=now_ns,
                started_ns=started_ns,
                ended_ns=ended_ns,
                ran=len(frames),
                answers=_answers(frames, results, error),
            )
        )
        for frame in frames:
            self._arena.mark(frame.submit.slot, IDLE)
        self._dispatcher.finished(ended_ns, run.frames)
        if not error:
            expected_ns = self._plan.latency_ns[run.variant][run.padded_batch - 1]
            self._overruns = self._overruns.after(ended_ns - started_ns - expected_ns)
            self._plan = self._plan.with_reserve(self._overruns)
            profiled_ns = ms_to_ns(self._profiles[group].latency(run.variant, run.padded_batch, self._configured_speed))
            self._rate(observe(self._measured, ended_ns, ended_ns - started_ns, profiled_ns))
        self._check_failures(error)

    def _infer(self, run: Run, frames: Sequence[Prepared]) -> tuple[list[Detections] | None, str]:
        """What is seen in ``frames``, or what went wrong.

        Where ``run`` pads the batch, the last frame fills it up; the surplus results are left out.
        """
        group = self.active.group
        input_size = self._profiles[group].variants[run.variant].input_size
        inputs = [
            FrameInput(
                str(frame.submit.session),
                frame.submit.frame_id,
                None if frame.image is None else fit(frame.image, input_size),
            )
            for frame in frames
        ]
        padding = inputs[-1:] * (run.padded_batch - len(inputs))
        try:
            return self._executor.infer(self._names[group][run.variant], inputs + padding)[: len(frames)], ""
        except ExecutorError as fault:
            return None, str(fault)
        except Exception as fault:  # whatever a runtime throws, its frames are answered and the loop decides what next
            _log.exception("device %d failed with a batch of %d", self._device, len(frames))
            return None, f"device {self._device} failed: {type(fault).__name__}: {fault}"

    def _check_failures(self, error: str) -> None:
        self._failures = self._failures + 1 if error else 0
        if self._failures >= MAX_CONSECUTIVE_FAILURES:
            raise ExecutorError(f"device {self._device} failed {self._failures} batches in a row; the last: {error}")

    # -- speed --------------------------------------------------------------------------------------------------------

    def _rate(self, measured: DeviceSpeed) -> None:
        """Decide with this speed from now on."""
        changed = measured.steps != self._measured.steps
        self._measured = measured
        if changed:
            self._follow(self.active)
            self._send(ipc.Speed(self._device, self._plan.speed))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _not_run(
        self,
        answers: tuple[ipc.Answer, ...],
        group: str,
        queue: int = 0,
        head_slack_ms: float = 0.0,
        decided_ns: int = 0,
        planned_batch: int = 0,
    ) -> ipc.Batch:
        """Answers to frames that no batch held; the plan's variants are those of the group that runs.

        Without a planned batch it was no decision of the dispatcher.
        """
        running = group == self.active.group
        variant = self._plan.variant if running else 0
        return ipc.Batch(
            device=self._device,
            group=group,
            variant=variant,
            planned_variant=variant,
            fallbacks=self._others if running else (),
            planned_batch=planned_batch,
            queue=queue,
            head_slack_ms=head_slack_ms,
            speed=self._plan.speed,
            reserve_ns=self._plan.reserve_ns,
            decided_ns=decided_ns,
            started_ns=decided_ns,
            ended_ns=decided_ns,
            ran=0,
            answers=answers,
        )

    def _send(self, message: ipc.Message) -> None:
        try:
            self._channel.send(message)
        except PeerGone:
            _log.debug("the endpoint has gone; the next receive ends this process")

    def _follow(self, serve: ipc.Serve) -> None:
        """Decide by what ``serve`` says, with what is loaded and as fast as the device is now."""
        profile = self._profiles[serve.group]
        loaded = self._executor.resident()
        resident = [index for index, name in enumerate(self._names[serve.group]) if name in loaded]
        speed = self._configured_speed * self._measured.speed
        plan = DevicePlan.of(profile, serve.variant, min(serve.batch, profile.max_batch), speed, resident)
        self._plan = plan.with_reserve(self._overruns)
        # Loaded variants beside the planned one: with them a recording's decisions can be made again.
        self._others = tuple(variant for variant in self._plan.resident if variant != serve.variant)


def _until(*instants_ns: int | None) -> float | None:
    """Seconds to the first of them; ``None``: there is none."""
    due_ns = [instant for instant in instants_ns if instant is not None]
    return max(0.0, (min(due_ns) - time.monotonic_ns()) / NS_PER_S) if due_ns else None


def _give_up_ns(frame: QueuedFrame) -> int:
    return min(frame.deadline_ns, frame.arrived_ns + GROUP_PATIENCE_NS)


def _head_slack_ms(queue: DeadlineQueue, now_ns: int) -> float:
    head = queue.head()
    return 0.0 if head is None else ns_to_ms(head.deadline_ns - now_ns)


def _answers(frames: Sequence[Prepared], results: list[Detections] | None, error: str) -> tuple[ipc.Answer, ...]:
    if results is None:
        return tuple(_answer(frame, Outcome.FAILED, error) for frame in frames)
    pairs = zip(frames, results, strict=True)
    return tuple(_answer(frame, Outcome.ON_TIME, "", result) for frame, result in pairs)


def _answer(frame: Prepared, outcome: Outcome, reason: str, result: Detections | None = None) -> ipc.Answer:
    return ipc.Answer(
        key=frame.submit.key,
        outcome=outcome,
        reason=reason,
        detections=NOTHING if result is None else pack(result),
        queued_ns=frame.queued_ns,
        preprocess_ns=frame.preprocess_ns,
    )
