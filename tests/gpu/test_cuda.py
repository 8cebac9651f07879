"""What only a CUDA device can show: captured graphs, half precision, loading beside inference, memory given back.

The contract that CUDA shares with the other runtimes is in ``tests/contract/test_executors.py``.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moonjelly.inference import device_kind
from moonjelly.inference.torch_runtime import TorchExecutor
from moonjelly.types import Outcome
from tests.support.models import noise_frames, tiny_source, tiny_variant
from tests.support.serving import jpeg, running_server, welcomed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
MAX_BATCH = 4


@pytest.fixture
def executor() -> Iterator[TorchExecutor]:
    made = TorchExecutor(cuda=True)
    yield made
    made.close()


@pytest.mark.parametrize("batch", range(1, MAX_BATCH + 1))
def test_a_captured_graph_answers_as_the_cpu_does(executor: TorchExecutor, batch: int) -> None:
    reference = TorchExecutor(cuda=False)
    frames = noise_frames(batch, 64, seed=batch)
    for one in (executor, reference):
        one.load(tiny_variant(64), tiny_source(), MAX_BATCH)
    answered, expected = (one.infer(tiny_variant(64).name, frames) for one in (executor, reference))
    for got, wanted in zip(answered, expected, strict=True):
        assert np.array_equal(got.classes, wanted.classes)
        assert np.abs(got.boxes - wanted.boxes).max(initial=0.0) * 64 <= 1.0
        assert np.abs(got.scores - wanted.scores).max(initial=0.0) <= 1e-2


def test_half_precision_moves_boxes_by_less_than_two_pixels(executor: TorchExecutor) -> None:
    whole, half = tiny_variant(64), replace(tiny_variant(64), name="half", precision="fp16")
    frames = noise_frames(2, 64, seed=5)
    for variant in (whole, half):
        executor.load(variant, tiny_source(), MAX_BATCH)
    for got, wanted in zip(executor.infer("half", frames), executor.infer(whole.name, frames), strict=True):
        count = min(len(got), len(wanted))
        assert abs(len(got) - len(wanted)) <= 2
        assert np.abs(np.sort(got.scores)[-count:] - np.sort(wanted.scores)[-count:]).max(initial=0.0) <= 2e-2


def test_loading_beside_inference_changes_no_answer(executor: TorchExecutor) -> None:
    executor.load(tiny_variant(64), tiny_source(), MAX_BATCH)
    frames = noise_frames(3, 64, seed=1)
    before = executor.infer(tiny_variant(64).name, frames)
    loader = threading.Thread(target=executor.load, args=(tiny_variant(128), tiny_source(), MAX_BATCH))
    loader.start()
    while loader.is_alive():
        for got, wanted in zip(executor.infer(tiny_variant(64).name, frames), before, strict=True):
            assert np.array_equal(got.boxes, wanted.boxes)
    loader.join()
    assert tiny_variant(128).name in executor.resident()


@pytest.mark.full
def test_two_hundred_loads_leave_no_memory_behind(executor: TorchExecutor) -> None:
    frames = noise_frames(1, 64, seed=2)

    def cycle() -> int:
        executor.load(tiny_variant(64), tiny_source(), MAX_BATCH)
        executor.infer(tiny_variant(64).name, frames)
        executor.unload(tiny_variant(64).name)
        return int(torch.cuda.memory_reserved())

    settled = max(cycle() for _ in range(5))
    assert max(cycle() for _ in range(200)) <= settled * 1.01


async def test_a_server_answers_frames_from_the_gpu(root: Path, data_dir: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    shutil.copytree(root / "profiles" / "yolo-fastest", zoo)
    (zoo / "cpu").rename(zoo / device_kind("torch"))  # any profile will do: one frame at a time
    with running_server(tmp_path, "--runtime", "torch", zoo=zoo) as server:
        async with welcomed(server.port) as client:
            await client.placed()
            await client.frame(1, jpeg())
            assert (await client.result(1)).outcome is Outcome.ON_TIME
