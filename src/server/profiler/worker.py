"""The process that drives one device: ``python -m server.profiler.worker FD PID``."""

from __future__ import annotations

import time

import cv2

from moonjelly.errors import ExecutorError, MoonjellyError
from moonjelly.inference import Executor, FrameInput, SimulationOptions, make_executor
from moonjelly.inference.preprocess import resize
from moonjelly.profiles import ProfileOptions
from moonjelly.repository import FileCache, Zoo, load_zoo
from moonjelly.scenes import Scene
from server import ipc
from server.channel import Channel, inherited

REPORT_EVERY_S = 0.25
LEAST_ROWS = 15
"""However slow a variant is, its warm-up and a few rows more are measured."""

_SCENE_STEP = 40
"""Frames of the traffic scene between two pictures of a batch: other vehicles, other boxes, other NMS."""


def main() -> None:
    """Serve the parent until it closes the channel."""
    cv2.setNumThreads(1)
    with inherited() as channel:
        configure = channel.receive()
        assert isinstance(configure, ipc.ConfigureProfiler)
        try:
            zoo = load_zoo(configure.zoo)
            executor = _make(configure, zoo)
        except MoonjellyError as fault:
            channel.send(ipc.Refused(str(fault), fault.exit_code))
            return
        info = executor.info
        channel.send(ipc.Ready(configure.device, info.kind, info.name, info.runtime, info.versions))
        while True:
            measure = channel.receive()
            assert isinstance(measure, ipc.Measure)
            try:
                times_ms = _measure(channel, zoo, executor, measure, configure.seed)
            except MoonjellyError as fault:
                channel.send(ipc.Trouble(configure.device, str(fault)))
            else:
                channel.send(ipc.Measured(times_ms))


def _make(configure: ipc.ConfigureProfiler, zoo: Zoo) -> Executor:
    profile = None
    if configure.runtime == "simulated":
        profile = zoo.profile(configure.kind, ProfileOptions(percentile=50))
    return make_executor(
        configure.runtime,
        device=configure.device,
        threads=configure.threads,
        profile=profile,
        cache=FileCache(),
        simulation=SimulationOptions(seed=configure.seed + configure.device),
    )


def _measure(channel: Channel, zoo: Zoo, executor: Executor, measure: ipc.Measure, seed: int) -> tuple[float, ...]:
    variant = zoo.variant(measure.variant)
    for resident in executor.resident() - {variant.name}:
        executor.unload(resident)
    if variant.name not in executor.resident():
        source = zoo.source(variant.model, with_weights=executor.needs_pixels)
        executor.load(variant, source, measure.max_batch)
    frames = pictures(measure.batch, variant.input_size, seed) if executor.needs_pixels else blanks(measure.batch)
    clock = time.process_time if measure.processor_time else time.perf_counter
    times_ms: list[float] = []
    start = reported = time.perf_counter()
    while len(times_ms) < measure.batches:
        before = clock()
        answers = executor.infer(variant.name, frames)
        times_ms.append((clock() - before) * 1000.0)
        now = time.perf_counter()
        if len(answers) != len(frames):
            raise ExecutorError(f"variant '{variant.name}' gave {len(answers)} answers to {len(frames)} frames")
        if measure.limit_s and now - start > measure.limit_s and len(times_ms) >= LEAST_ROWS:
            break
        if now - reported > REPORT_EVERY_S:
            channel.send(ipc.Measuring(len(times_ms)))
            reported = now
    return tuple(times_ms)


def pictures(count: int, size: int, seed: int) -> list[FrameInput]:
    """A batch of different pictures of a traffic scene."""
    scene = Scene(seed)
    return [
        FrameInput("profiler", number, resize(scene.picture(number * _SCENE_STEP), size)) for number in range(count)
    ]


def blanks(count: int) -> list[FrameInput]:
    """A batch for an executor that does not look."""
    return [FrameInput("profiler", number, None) for number in range(count)]


if __name__ == "__main__":
    main()
