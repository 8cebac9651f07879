"""``python -m server.executor FD PARENT``: the process of one device, started by the endpoint."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from moonjelly.dispatching import create
from moonjelly.errors import ExecutorError, MoonjellyError
from moonjelly.inference import make_executor
from moonjelly.inference.preprocess import DecodeLimits
from moonjelly.inference.protocol import Executor
from moonjelly.inference.recorded import read_answers
from moonjelly.inference.simulated import Answers, SimulationOptions, SyntheticAnswers
from moonjelly.profiles import ProfileOptions
from moonjelly.repository import FileCache, Zoo, load_zoo
from server import ipc
from server.arena import Arena
from server.channel import Channel, inherited
from server.child import prompt_threads
from server.executor.intake import DirectIntake, Intake, PreparingIntake
from server.executor.loop import ExecutorLoop
from server.executor.models import GroupAnswers, ResidentModels, merged_profile
from server.executor.pixels import check, prepare

_SIMULATED_PERCENTILE = 50.0
"""A simulated device takes what the real one took on average; planning keeps the higher percentile."""


def main() -> None:
    """Configure, get warm, say so, run."""
    cv2.setNumThreads(1)  # its pool is the process's, and one decode per pool thread runs here
    logging.basicConfig(format="%(asctime)s executor %(levelname)s %(message)s", level=logging.WARNING)
    with inherited() as channel:
        configure = channel.receive()
        assert isinstance(configure, ipc.Configure)
        arena = Arena(configure.arena_fd, configure.slots, configure.slot_bytes)
        try:
            serve(configure, arena, channel)
        except ExecutorError as fault:
            sys.exit(f"executor of device {configure.device}: {fault}")
        except MoonjellyError as fault:
            channel.send(ipc.Refused(str(fault), fault.exit_code))
            sys.exit(fault.exit_code)


def serve(configure: ipc.Configure, arena: Arena, channel: Channel) -> None:
    """Run the device until the endpoint goes.

    Raises:
        MoonjellyError: a zoo, profile or model that cannot be used.
    """
    zoos = {group: load_zoo(place) for group, place in configure.zoos.items()}
    executor = _executor(configure, zoos)
    kind = configure.kind if configure.runtime == "simulated" else executor.info.kind
    profiles = {group: zoo.profile(kind, ProfileOptions(max_batch=configure.max_batch)) for group, zoo in zoos.items()}
    active = ipc.Serve(plan_version=0, group=next(iter(zoos)), variant=0, batch=1)
    loop = ExecutorLoop(
        configure.device,
        executor,
        profiles,
        configure.speed,
        create(configure.dispatcher),
        arena,
        channel,
        active,
    )
    intake = _intake(configure, executor, loop, zoos, arena, channel)
    models = ResidentModels(executor, zoos, configure.max_batch, configure.resident, intake.post)
    models.start(active.group, active.variant)
    gc.collect()
    gc.freeze()
    info = executor.info
    channel.send(ipc.Ready(configure.device, kind, info.name, info.runtime, info.versions))
    try:
        with prompt_threads():
            loop.run(intake, models)
    finally:
        models.close()
        intake.close()
        executor.close()


def _executor(configure: ipc.Configure, zoos: dict[str, Zoo]) -> Executor:
    if configure.runtime != "simulated":
        return make_executor(
            configure.runtime, device=configure.device_index, threads=configure.threads, cache=FileCache()
        )
    reading = ProfileOptions(percentile=_SIMULATED_PERCENTILE, max_batch=configure.max_batch)
    profile = merged_profile({group: zoo.profile(configure.kind, reading) for group, zoo in zoos.items()})
    answers = GroupAnswers({group: _answers(configure.answers.get(group), zoo) for group, zoo in zoos.items()})
    options = SimulationOptions(seed=configure.seed + configure.device, scale=configure.scale / configure.speed)
    return make_executor(
        "simulated", device=configure.device_index, profile=profile, simulation=options, answers=answers
    )


def _answers(place: str | None, zoo: Zoo) -> Answers:
    return read_answers(Path(place), zoo.variants, zoo.classes) if place else SyntheticAnswers(len(zoo.classes))


def _intake(
    configure: ipc.Configure,
    executor: Executor,
    loop: ExecutorLoop,
    zoos: dict[str, Zoo],
    arena: Arena,
    channel: Channel,
) -> Intake:
    limits = DecodeLimits(max_bytes=configure.slot_bytes, max_pixels=configure.max_pixels)

    def check_frame(submit: ipc.Submit) -> None:
        check(arena.read(submit.slot, submit.length), submit, limits)

    def prepare_frame(submit: ipc.Submit) -> NDArray[np.uint8]:
        size = zoos[loop.active.group].variants[loop.active.variant].input_size
        with arena.marked(submit.slot):
            return prepare(arena.read(submit.slot, submit.length), submit, size, limits)

    if executor.needs_pixels:
        return PreparingIntake(channel, prepare_frame, configure.decoders)
    return DirectIntake(channel, check_frame)


if __name__ == "__main__":
    main()
