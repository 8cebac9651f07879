"""The simulated executor: its latency is the profile's, its answers are seeded."""

from __future__ import annotations

import itertools

import pytest

from moonjelly.errors import ConfigError, ExecutorError, ModelError
from moonjelly.inference import (
    FrameInput,
    SimulatedExecutor,
    SimulationOptions,
    SyntheticAnswers,
    device_kind,
    make_executor,
    resolve_runtime,
)
from moonjelly.inference import simulated as module
from moonjelly.inference.protocol import ModelSource
from moonjelly.profiles import Profile
from moonjelly.types import Variant

VARIANTS = (Variant("a", "net", 64), Variant("b", "net", 96))
PROFILE = Profile("bench", VARIANTS, (0.1, 0.2), ((2.0, 3.0), (40.0, 50.0)))
SOURCE = ModelSource("net", "none", "", b"", (), "")


def frames(count: int) -> list[FrameInput]:
    return [FrameInput("camera", number, None) for number in range(count)]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept; nobody sleeps, and what is computed takes half a millisecond."""
    seconds: list[float] = []
    instants = itertools.count(0, 500_000)
    monkeypatch.setattr(module.time, "sleep", seconds.append)
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: next(instants))
    return seconds


def make(**options: float) -> SimulatedExecutor:
    executor = SimulatedExecutor(PROFILE, SimulationOptions(**options))  # type: ignore[arg-type]
    for variant in VARIANTS:
        executor.load(variant, SOURCE, 2)
    return executor


def test_it_sleeps_the_profile_s_latency_within_the_jitter(slept: list[float]) -> None:
    executor = make(jitter=0.1)
    slept.clear()
    for _ in range(200):
        executor.infer("b", frames(2))
    # One sleep each, to the end of 50 ms within a tenth; what was computed before is taken off.
    assert len(slept) == 200
    assert 0.0445 <= min(slept) < 0.046
    assert 0.053 < max(slept) <= 0.0545


def test_the_same_seed_jitters_alike(slept: list[float]) -> None:
    one, other, third = make(seed=1), make(seed=1), make(seed=2)
    latencies = [[executor._latency_ns("b", 1) for _ in range(5)] for executor in (one, other, third)]
    assert latencies[0] == latencies[1] != latencies[2]


def test_without_scale_it_answers_at_once(slept: list[float]) -> None:
    executor = make(scale=0.0)
    slept.clear()
    assert len(executor.infer("a", frames(2))) == 2
    assert slept == []


def test_only_what_the_profile_knows_can_be_loaded() -> None:
    executor = SimulatedExecutor(PROFILE)
    with pytest.raises(ModelError, match="profile 'bench' has no variant 'c'"):
        executor.load(Variant("c", "net", 64), SOURCE, 1)
    with pytest.raises(ModelError, match=r"batches up to 3; profile 'bench' has 1\.\.2"):
        executor.load(VARIANTS[0], SOURCE, 3)


def test_synthetic_answers_depend_on_seed_stream_and_frame_alone() -> None:
    def seen(seed: int, stream: str, frame: int) -> bytes:
        return SyntheticAnswers(3, seed).detections("a", stream, frame).boxes.tobytes()

    assert seen(0, "x", 5) == seen(0, "x", 5)
    assert len({seen(0, "x", 5), seen(1, "x", 5), seen(0, "y", 5), seen(0, "x", 6)}) == 4


@pytest.mark.parametrize("options", [{"jitter": 1.0}, {"jitter": -0.1}, {"scale": -1.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ExecutorError, match="jitter must be in"):
        SimulationOptions(**options)  # type: ignore[arg-type]


def test_the_factory_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="runtime 'tensorrt' is unknown; there are auto, torch, onnx, simulated"):
        make_executor("tensorrt")
    with pytest.raises(ConfigError, match="needs the profile"):
        make_executor("simulated")
    with pytest.raises(ConfigError, match="threads 0"):
        make_executor("onnx", threads=0)
    with pytest.raises(ConfigError, match="the kind of its profile"):
        device_kind("simulated")


def test_without_a_gpu_auto_is_onnx_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("moonjelly.inference.factory._GPU_NODES", tmp_path)
    assert resolve_runtime("auto") == "onnx"
    assert device_kind("auto") == "cpu"
