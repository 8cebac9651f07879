"""What every executor promises, whatever runs behind it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from moonjelly.detection.coco import CocoImage, CocoSet, write_coco
from moonjelly.errors import ExecutorError, ModelError
from moonjelly.inference import (
    Executor,
    FrameInput,
    ModelSource,
    PostOptions,
    SimulatedExecutor,
    SimulationOptions,
    SyntheticAnswers,
)
from moonjelly.inference.onnx_runtime import CPU, CUDA, OnnxExecutor
from moonjelly.inference.preprocess import resize
from moonjelly.inference.recorded import read_answers
from moonjelly.inference.torch_runtime import TorchExecutor
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.darknet import load_network, random_network, save_weights
from moonjelly.profiles import Profile
from moonjelly.repository import FileCache, source_digest
from moonjelly.types import Detections, Variant
from tests.support.models import noise_frames, tiny_source, tiny_variant, without_pixels

MAX_BATCH = 4

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_onnx_cuda = pytest.mark.skipif(
    CUDA not in onnxruntime.get_available_providers(), reason="no CUDA device, or onnxruntime is a build without CUDA"
)


@dataclass
class Rig:
    """An executor and what it can be asked."""

    executor: Executor
    variants: tuple[Variant, ...]
    source: ModelSource

    def frames(self, count: int, size: int = 64, seed: int = 0) -> list[FrameInput]:
        frames = noise_frames(count, size, seed)
        return frames if self.executor.needs_pixels else without_pixels(frames)


def _simulated() -> Executor:
    variants = (tiny_variant(64), tiny_variant(128))
    profile = Profile("bench", variants, (0.2, 0.4), ((0.2, 0.3, 0.4, 0.5), (0.3, 0.4, 0.5, 0.6)))
    return SimulatedExecutor(profile, SimulationOptions(seed=3))


def _recorded() -> Executor:
    """Answers what synthetic answers gave when they were recorded."""
    variants = (tiny_variant(64), tiny_variant(128))
    numbers = range(1, 2 * MAX_BATCH + 1)
    found = {number: SyntheticAnswers().detections("any", "recording", number) for number in numbers}
    images = [CocoImage(number, "", 640, 480) for number in numbers]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answers.json")
        write_coco(file, CocoSet.of(("thing",), images, found))
        answers = read_answers(file, variants, ("thing",))
    profile = Profile("bench", variants, (0.2, 0.4), ((0.2, 0.3, 0.4, 0.5), (0.3, 0.4, 0.5, 0.6)))
    return SimulatedExecutor(profile, answers=answers)


@pytest.fixture(
    params=[
        pytest.param(_simulated, id="simulated"),
        pytest.param(_recorded, id="simulated-recorded"),
        pytest.param(lambda: OnnxExecutor(provider=CPU), id="onnx-cpu"),
        pytest.param(lambda: TorchExecutor(cuda=False), id="torch-cpu"),
        pytest.param(lambda: OnnxExecutor(provider=CUDA), id="onnx-cuda", marks=[pytest.mark.gpu, needs_onnx_cuda]),
        pytest.param(lambda: TorchExecutor(cuda=True), id="torch-cuda", marks=[pytest.mark.gpu, needs_cuda]),
    ]
)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    executor = request.param()
    yield Rig(executor, (tiny_variant(64), tiny_variant(128)), tiny_source())
    executor.close()


def assert_same(one: Detections, other: Detections, pixels: float = 1.0, size: int = 64, score: float = 1e-3) -> None:
    assert len(one) == len(other)
    assert np.array_equal(one.classes, other.classes)
    assert np.abs(one.scores - other.scores).max(initial=0.0) <= score
    assert np.abs(one.boxes - other.boxes).max(initial=0.0) * size <= pixels


def test_it_says_what_it_runs_on(rig: Rig) -> None:
    info = rig.executor.info
    assert info.kind
    assert info.name
    assert info.runtime in ("simulated", "onnx", "torch")
    assert all(info.versions.values())


def test_resident_are_the_loaded_ones_until_unloaded(rig: Rig) -> None:
    executor, (small, large) = rig.executor, rig.variants
    assert executor.resident() == frozenset()
    executor.load(small, rig.source, MAX_BATCH)
    executor.load(large, rig.source, MAX_BATCH)
    executor.load(small, rig.source, MAX_BATCH)
    assert executor.resident() == {small.name, large.name}
    executor.unload(small.name)
    executor.unload("never heard of")
    assert executor.resident() == {large.name}
    with pytest.raises(ExecutorError, match=r"tiny-64.*not resident"):
        executor.infer(small.name, rig.frames(1))
    assert len(executor.infer(large.name, rig.frames(1, 128))) == 1


def test_a_batch_gives_one_answer_per_frame_in_order_whatever_its_size(rig: Rig) -> None:
    executor, (small, _) = rig.executor, rig.variants
    executor.load(small, rig.source, MAX_BATCH)
    frames = rig.frames(MAX_BATCH)
    alone = [executor.infer(small.name, [frame])[0] for frame in frames]
    for batch in range(1, MAX_BATCH + 1):
        together = executor.infer(small.name, frames[:batch])
        assert len(together) == batch
        for one, other in zip(together, alone, strict=False):
            assert_same(one, other)
    backwards = executor.infer(small.name, frames[::-1])
    for one, other in zip(backwards, alone[::-1], strict=True):
        assert_same(one, other)
    assert sum(map(len, alone)) > 0
    assert len({detections.boxes.tobytes() for detections in alone}) > 1


def test_a_batch_that_is_padded_with_its_last_frame_answers_as_without(rig: Rig) -> None:
    executor, (small, _) = rig.executor, rig.variants
    executor.load(small, rig.source, MAX_BATCH)
    frames = rig.frames(2)
    padded = executor.infer(small.name, frames + frames[-1:] * (MAX_BATCH - 2))
    for one, other in zip(padded, executor.infer(small.name, frames), strict=False):
        assert_same(one, other)


def test_detections_are_typed_sorted_and_inside_the_frame(rig: Rig) -> None:
    executor, (small, _) = rig.executor, rig.variants
    executor.load(small, rig.source, MAX_BATCH)
    for detections in executor.infer(small.name, rig.frames(MAX_BATCH)):
        count = len(detections)
        assert detections.boxes.shape == (count, 4)
        assert (detections.boxes.dtype, detections.scores.dtype, detections.classes.dtype) == (
            np.float32,
            np.float32,
            np.int32,
        )
        assert ((detections.boxes >= 0.0) & (detections.boxes <= 1.0)).all()
        assert (detections.boxes[:, 2:] >= detections.boxes[:, :2]).all()
        assert (np.diff(detections.scores) <= 0.0).all()
        assert ((detections.scores >= 0.2) & (detections.scores <= 1.0)).all()
        assert ((detections.classes >= 0) & (detections.classes < len(rig.source.classes))).all()


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_a_batch_it_was_not_loaded_for_is_refused(rig: Rig, count: int) -> None:
    rig.executor.load(rig.variants[0], rig.source, MAX_BATCH)
    with pytest.raises(ExecutorError, match=rf"batches 1\.\.{MAX_BATCH}, not {count}"):
        rig.executor.infer(rig.variants[0].name, rig.frames(count))


def test_loading_again_for_a_larger_batch_grows_it(rig: Rig) -> None:
    rig.executor.load(rig.variants[0], rig.source, 1)
    rig.executor.load(rig.variants[0], rig.source, MAX_BATCH)
    assert len(rig.executor.infer(rig.variants[0].name, rig.frames(MAX_BATCH))) == MAX_BATCH


def test_close_frees_everything_and_may_be_called_twice(rig: Rig) -> None:
    rig.executor.load(rig.variants[0], rig.source, 1)
    rig.executor.close()
    rig.executor.close()
    assert rig.executor.resident() == frozenset()


def test_a_variant_can_be_loaded_while_another_runs(rig: Rig) -> None:
    executor, (small, large) = rig.executor, rig.variants
    executor.load(small, rig.source, MAX_BATCH)
    faults: list[BaseException] = []

    def load() -> None:
        try:
            for _ in range(3):
                executor.load(large, rig.source, MAX_BATCH)
                executor.unload(large.name)
            executor.load(large, rig.source, MAX_BATCH)
        except BaseException as fault:
            faults.append(fault)

    expected = executor.infer(small.name, rig.frames(2))
    loader = threading.Thread(target=load)
    loader.start()
    runs = 0
    while loader.is_alive() or runs == 0:
        for one, other in zip(executor.infer(small.name, rig.frames(2)), expected, strict=True):
            assert_same(one, other)
        runs += 1
    loader.join()
    assert not faults
    assert executor.resident() == {small.name, large.name}


def test_a_picture_of_the_wrong_shape_is_refused_and_harms_nobody(rig: Rig) -> None:
    if not rig.executor.needs_pixels:
        rig.executor.load(rig.variants[0], rig.source, 1)
        assert len(rig.executor.infer(rig.variants[0].name, [FrameInput("camera", 0, None)])) == 1
        return
    variant = rig.variants[0]
    rig.executor.load(variant, rig.source, MAX_BATCH)
    wrong = np.zeros((32, 64, 3), np.uint8)
    for image in (wrong, None, np.zeros((64, 64, 3), np.float32)):
        with pytest.raises(ExecutorError, match=r"frame 7 of stream 'cam'.*takes \(64, 64, 3\)"):
            rig.executor.infer(variant.name, [rig.frames(1)[0], FrameInput("cam", 7, image)])  # type: ignore[arg-type]
    assert len(rig.executor.infer(variant.name, rig.frames(2))) == 2


def _broken(source: ModelSource) -> dict[str, tuple[Variant, ModelSource, str]]:
    nan = np.frombuffer(source.weights, np.uint8).copy()
    nan[20:24] = 0xFF
    return {
        "short weights": (tiny_variant(), replace(source, weights=source.weights[:-4]), "1 floats are missing"),
        "weights that are no numbers": (tiny_variant(), replace(source, weights=nan.tobytes()), "not finite"),
        "garbage definition": (tiny_variant(), replace(source, definition="garbage"), "line 1"),
        "unknown architecture": (tiny_variant(), replace(source, architecture="tflite"), "tflite"),
        "size off the stride": (tiny_variant(60), source, "60 is no multiple of the stride"),
        "other number of classes": (tiny_variant(), replace(source, classes=("car",)), "3 classes apart, 1 are named"),
    }


@pytest.mark.parametrize("case", _broken(tiny_source()))
def test_a_model_that_cannot_be_built_is_reported_and_leaves_nothing(rig: Rig, case: str) -> None:
    if not rig.executor.needs_pixels:
        with pytest.raises(ModelError, match="no variant 'tiny-96'"):
            rig.executor.load(tiny_variant(96), rig.source, 1)
        return
    variant, source, words = _broken(rig.source)[case]
    with pytest.raises(ModelError, match=words):
        rig.executor.load(variant, source, MAX_BATCH)
    assert rig.executor.resident() == frozenset()
    rig.executor.load(rig.variants[0], rig.source, 1)
    assert len(rig.executor.infer(rig.variants[0].name, rig.frames(1))) == 1


@pytest.mark.gpu
@needs_cuda
def test_half_precision_sees_what_single_sees() -> None:
    single, half = TorchExecutor(cuda=True), TorchExecutor(cuda=True)
    single.load(tiny_variant(), tiny_source(), 2)
    half.load(tiny_variant(precision="fp16"), tiny_source(), 2)
    frames = noise_frames(2, 64)
    for one, other in zip(single.infer("tiny-64", frames), half.infer("tiny-64", frames), strict=True):
        assert abs(len(one) - len(other)) <= 1


def _checkpoint_source(path: Path) -> ModelSource:
    source = tiny_source()
    network = load_network(parse_cfg(source.definition), source.weights)
    torch.save(network.state_dict(), path)
    weights = path.read_bytes()
    return replace(source, architecture="pth", weights=weights, digest=source_digest(source.definition, weights))


def test_a_torch_checkpoint_runs_like_the_weights_it_holds(tmp_path: Path) -> None:
    checkpoint = _checkpoint_source(tmp_path / "tiny.pth")
    cache = FileCache(tmp_path / "cache")
    frames = noise_frames(2, 64)
    reference = OnnxExecutor(provider=CPU)
    reference.load(tiny_variant(), tiny_source(), 2)
    for executor in (OnnxExecutor(provider=CPU, cache=cache), TorchExecutor(cuda=False)):
        executor.load(tiny_variant(), checkpoint, 2)
        answers = executor.infer("tiny-64", frames)
        for one, other in zip(answers, reference.infer("tiny-64", frames), strict=True):
            assert_same(one, other)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("model", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_onnx_and_torch_see_the_same_in_real_pictures(data_dir: Path, model: str) -> None:
    import cv2

    folder = data_dir / "models" / "yolo-fastest-1.1"
    definition, weights = (folder / f"{model}.cfg").read_text(), (folder / f"{model}.weights").read_bytes()
    classes = tuple((folder / "coco.names").read_text().split("\n")[:80])
    source = ModelSource(model, "darknet", definition, weights, classes, source_digest(definition, weights))
    variant = Variant("real", model, 320)
    pictures = [cv2.imread(str(file)) for file in sorted((data_dir / "coco" / "images").glob("*.jpg"))[:8]]
    frames = [
        FrameInput("coco", number, resize(np.ascontiguousarray(picture[:, :, ::-1]), 320))
        for number, picture in enumerate(pictures)
        if picture is not None
    ]
    answers = []
    for executor in (OnnxExecutor(provider=CPU), TorchExecutor(cuda=False)):
        executor.load(variant, source, len(frames))
        answers.append(executor.infer(variant.name, frames))
    assert sum(map(len, answers[0])) > 10
    for one, other in zip(*answers, strict=True):
        assert_same(one, other, size=320)


@pytest.mark.parametrize(("definition", "damping"), [("yolov4-tiny.cfg", 1.0), ("yolov4.cfg", 0.95)])
def test_onnx_and_torch_agree_on_everything_that_yolov4_is_made_of(
    data_dir: Path, definition: str, damping: float
) -> None:
    text = (data_dir / "models" / "darknet" / definition).read_text()
    network = random_network(parse_cfg(text), torch.Generator().manual_seed(5))
    with torch.no_grad():  # untrained, its values would grow with every residual until all scores are 1
        for block in network.blocks():
            block.conv.weight.mul_(damping)
    weights = save_weights(network)
    source = ModelSource("random", "darknet", text, weights, tuple(map(str, range(80))), source_digest(text, weights))
    variant = Variant("random-96", "random", 96)
    everything = PostOptions(score_threshold=0.0, nms_iou=1.0, candidates=50)
    scores = []
    for executor in (OnnxExecutor(provider=CPU, post=everything), TorchExecutor(cuda=False, post=everything)):
        executor.load(variant, source, 2)
        scores.append([found.scores for found in executor.infer(variant.name, noise_frames(2, 96))])
        executor.close()
    for one, other in zip(*scores, strict=True):
        assert len(one) == 50
        assert np.ptp(one) > 0.1 * one.max()
        assert np.allclose(one, other, rtol=1e-3, atol=1e-6)
