"""The loop of one device, in a thread, with a simulated device of two model groups behind a real channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from moonjelly.dispatching import DEFAULT, create
from moonjelly.inference import FrameInput
from moonjelly.inference.simulated import Answers, SimulatedExecutor, SimulationOptions, SyntheticAnswers
from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.repository import load_zoo
from moonjelly.types import Detections, Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S
from server import ipc
from server.arena import create_arena
from server.channel import Channel, pair
from server.executor.intake import DirectIntake
from server.executor.loop import GROUP_PATIENCE_NS, ExecutorLoop
from server.executor.models import GroupAnswers, ResidentModels, merged_profile
from tests.support.serving import write_zoo

FAR_NS = 30 * NS_PER_S
T = TypeVar("T")
ALL = ipc.Serve(plan_version=0, group="a", variant=0, batch=1)


class Counting(SimulatedExecutor):
    """Remembers how many frames it was given at a time; a test may hold its answers back."""

    def __init__(self, profile: Profile, options: SimulationOptions, answers: Answers) -> None:
        super().__init__(profile, options, answers)
        self.batches: list[int] = []
        self.begun, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def infer(self, variant: str, frames: Sequence[FrameInput]) -> list[Detections]:
        """See :class:`~moonjelly.inference.protocol.Executor`."""
        self.batches.append(len(frames))
        self.begun.set()
        assert self.may_answer.wait(100)
        return super().infer(variant, frames)


@dataclass
class Device:
    """The endpoint's end of the channel, the loader that the test may hold up, and what is behind it all."""

    channel: Channel
    models: ResidentModels
    executor: Counting

    def submit(self, key: int, group: str, slack_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self.channel.send(ipc.Submit(key, key, 0, 1, key, group, 64, 64, now_ns, now_ns + slack_ns))

    def batch(self) -> ipc.Batch:
        """The next one, whatever else is said before."""
        return self.next(ipc.Batch)

    def next(self, kind: type[T]) -> T:
        """The next message of ``kind``, whatever else is said before."""
        while not isinstance(message := self.channel.receive(), kind):
            pass
        return message


@contextmanager
def running(tmp_path: Path, options: SimulationOptions, dispatcher: str = DEFAULT) -> Iterator[Device]:
    """Group ``a`` has four variants and runs; group ``b`` has two. Nothing loads until ``models.start``."""
    zoos = {
        "a": load_zoo(str(write_zoo(tmp_path / "a", name="a"))),
        "b": load_zoo(str(write_zoo(tmp_path / "b", name="b", latencies_ms=(4.0, 6.0)))),
    }
    profiles = {group: zoo.profile("paper-gpu", ProfileOptions(max_batch=2)) for group, zoo in zoos.items()}
    answers = GroupAnswers(dict.fromkeys(zoos, SyntheticAnswers(2)))
    executor = Counting(merged_profile(profiles), options, answers)
    ours, theirs = pair()
    ours.settimeout(100)
    channel, arena = Channel(theirs), create_arena("test", 8, 4096)
    intake = DirectIntake(channel, lambda submit: None)
    models = ResidentModels(executor, zoos, 2, 0, intake.post)
    loop = ExecutorLoop(0, executor, profiles, 1.0, create(dispatcher), arena, channel, ALL)
    thread = threading.Thread(target=loop.run, args=(intake, models))
    thread.start()
    end = Channel(ours)
    try:
        yield Device(end, models, executor)
    finally:
        end.close()
        thread.join(100)
        assert not thread.is_alive()
        models.close()
        intake.close()
        channel.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with running(tmp_path, SimulationOptions()) as device:
        yield device


def test_a_frame_of_a_group_that_does_not_run_here_is_answered_at_once(device: Device) -> None:
    device.submit(1, "b", FAR_NS)
    batch = device.batch()
    (answer,) = batch.answers
    assert (answer.key, answer.outcome) == (1, Outcome.DROPPED)
    assert answer.reason == "device 0 does not run group 'b' any more: the plan has changed"
    assert (batch.group, batch.variant, batch.fallbacks) == ("b", 0, ())
    assert (batch.planned_batch, batch.queue) == (0, 1), "no decision of the dispatcher"


def test_frames_of_a_client_that_has_gone_are_no_decision_of_the_dispatcher(device: Device) -> None:
    device.channel.send(ipc.Serve(1, "b", 1, 1))  # nothing loads yet: frames of group b wait
    for key in (1, 2):
        device.submit(key, "b", FAR_NS)
    device.channel.send(ipc.Forget(1))
    batch = device.batch()
    assert [answer.reason for answer in batch.answers] == ["the client has gone"] * 2
    assert (batch.planned_batch, batch.queue, batch.ran) == (0, 2, 0)
    assert batch.decided_ns > 0


@pytest.mark.parametrize("slack_ns", [200 * NS_PER_MS, FAR_NS])
def test_a_frame_whose_group_does_not_come_is_answered_when_its_time_is_over(device: Device, slack_ns: int) -> None:
    """The loader has not been started: the group stays on its way."""
    device.channel.send(ipc.Serve(1, "b", 1, 1))
    sent_ns = time.monotonic_ns()
    device.submit(1, "b", slack_ns)
    (answer,) = device.batch().answers
    assert time.monotonic_ns() - sent_ns >= min(slack_ns, GROUP_PATIENCE_NS)
    assert (answer.outcome, answer.reason) == (Outcome.DROPPED, "device 0 did not come to run group 'b' in time")


def test_frames_that_wait_for_their_group_run_when_it_has_come(device: Device) -> None:
    device.channel.send(ipc.Serve(1, "b", 1, 1))
    device.submit(1, "b", FAR_NS)
    device.models.start("a", 0)
    batch = device.batch()
    assert (batch.group, batch.variant, batch.ran) == ("b", 1, 1)
    assert batch.answers[0].outcome is Outcome.ON_TIME
    device.submit(2, "a", FAR_NS)
    batch = device.batch()
    assert (batch.group, batch.ran, batch.answers[0].outcome) == ("a", 0, Outcome.DROPPED)


def test_a_device_that_is_slower_than_its_profile_says_so_and_decides_by_it(tmp_path: Path) -> None:
    """A third of the speed; once nothing runs any more, what was measured is forgotten step by step."""
    with running(tmp_path, SimulationOptions(scale=3.0)) as device:
        device.models.start("a", 3)
        device.channel.send(ipc.Serve(1, "a", 3, 1))
        device.next(ipc.Switched)
        device.submit(0, "a", FAR_NS)
        assert device.batch().speed == 1.0
        speed = 1.0
        while speed >= 0.45:
            device.submit(1, "a", FAR_NS)
            speed = device.batch().speed
        idle = device.next(ipc.Speed).speed
        while (later := device.next(ipc.Speed).speed) <= idle:
            idle = later
        device.submit(1, "a", FAR_NS)
        assert device.batch().speed >= later


def test_a_dispatcher_that_pads_gets_the_batch_that_it_asked_for(tmp_path: Path) -> None:
    """One frame comes and two are planned: the device runs two, and one is answered."""
    with running(tmp_path, SimulationOptions(), "jellyfish-fifo") as device:
        device.models.start("a", 0)
        device.channel.send(ipc.Serve(1, "a", 1, 2))
        device.next(ipc.Switched)
        device.submit(1, "a", 300 * NS_PER_MS)
        while not (batch := device.batch()).ran:  # a busy machine woke it too late: it was dropped
            device.submit(1, "a", 300 * NS_PER_MS)
        assert (batch.planned_batch, batch.ran, device.executor.batches) == (2, 1, [2])
        assert [(answer.key, answer.outcome) for answer in batch.answers] == [(1, Outcome.ON_TIME)]


def test_a_frame_that_comes_while_a_batch_runs_waits_in_the_queue(device: Device) -> None:
    """The device reads nothing meanwhile; what it takes is no time of the way to it, which planning would pay twice."""
    device.models.start("a", 0)
    device.executor.may_answer.clear()
    device.submit(1, "a", FAR_NS)
    assert device.executor.begun.wait(100)
    device.submit(2, "a", FAR_NS)
    given_ns = time.monotonic_ns()
    device.executor.may_answer.set()
    first, second = device.batch(), device.batch()
    assert first.decided_ns < second.answers[0].queued_ns <= given_ns <= first.ended_ns
    assert [answer.key for answer in (*first.answers, *second.answers)] == [1, 2]
