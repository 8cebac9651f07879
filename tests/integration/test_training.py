"""Training: the loss means what it says, learning happens, an interruption changes nothing, and a zoo comes out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.training import train_zoo
from moonjelly.detection import match, postprocess
from moonjelly.errors import MoonjellyError, ZooError
from moonjelly.inference import FrameInput, make_executor
from moonjelly.inference.preprocess import decode
from moonjelly.models.block import TensorBlock
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.darknet import random_network, save_weights
from moonjelly.models.loss import Targets, complete_iou, detection_loss
from moonjelly.models.train import DetectorTrainer, TrainOptions, rate_share
from moonjelly.repository import load_zoo
from moonjelly.scenes import CLASSES
from moonjelly.training import batches
from moonjelly.training import zoo as zoo_training
from moonjelly.training.architectures import ARCHITECTURES, definition
from moonjelly.training.batches import draw_batch
from moonjelly.training.evaluation import evaluate
from moonjelly.training.samples import SampleOptions, draw_samples
from moonjelly.types import Detections

NANO = parse_cfg(definition(ARCHITECTURES[0], 128))
SAMPLES = draw_samples(SampleOptions(first_seed=7, scenes=2, frames=2, varied_mix=True))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trainer(steps: int, seed: int = 0) -> DetectorTrainer:
    network = random_network(NANO, torch.Generator().manual_seed(seed))
    return DetectorTrainer(network, TrainOptions(steps=steps, learning_rate=5e-3, average=0.9))


def test_complete_iou_of_equal_nested_and_distant_boxes() -> None:
    box = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    assert complete_iou(box, box).item() == pytest.approx(1.0, abs=1e-5)
    nested = complete_iou(box, torch.tensor([[0.5, 0.5, 0.1, 0.2]])).item()
    assert nested == pytest.approx(0.25, abs=1e-5)
    apart = torch.tensor([[0.9, 0.5, 0.2, 0.4]])
    # No overlap: minus the squared distance over the squared diagonal around both.
    assert complete_iou(box, apart).item() == pytest.approx(-(0.4**2) / (0.6**2 + 0.4**2), abs=1e-5)


def test_the_loss_is_small_for_heads_that_say_the_truth() -> None:
    target = Targets(torch.tensor([0]), torch.tensor([2]), torch.tensor([[0.4, 0.6, 0.2, 0.21]]), torch.tensor([False]))
    shapes = [(1, len(head.anchors), 128 // head.stride, 128 // head.stride, 11) for head in NANO.heads]
    heads = [torch.full(shape, -12.0) for shape in shapes]
    wrong = detection_loss(NANO.heads, heads, target)
    assert wrong.answering > 0
    for head, raw in zip(NANO.heads, heads, strict=True):
        side = 128 // head.stride
        for anchor, (width, height) in enumerate(head.anchors):
            for row in range(side):
                for column in range(side):
                    offset = torch.tensor([0.4 * side - column, 0.6 * side - row])
                    if (offset > -0.45).all() and (offset < 1.45).all():
                        share = (offset + 0.5) / 2.0
                        raw[0, anchor, row, column, :2] = torch.logit(share)
                        raw[0, anchor, row, column, 2] = math.log(0.2 * 128 / width)
                        raw[0, anchor, row, column, 3] = math.log(0.21 * 128 / height)
                        raw[0, anchor, row, column, 4] = 12.0
                        raw[0, anchor, row, column, 7] = 12.0
    right = detection_loss(NANO.heads, heads, target)
    assert right.box.item() < 0.01
    assert right.classes.item() < 0.01
    assert right.total.item() < wrong.total.item()


def test_ignored_boxes_are_neither_right_nor_wrong() -> None:
    heads = [torch.full((1, len(h.anchors), 128 // h.stride, 128 // h.stride, 11), -12.0) for h in NANO.heads]
    ignored = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([True]))
    for raw in heads:
        side = raw.shape[2]
        raw[0, :, side // 2, side // 2, 4] = 12.0
    assert detection_loss(NANO.heads, heads, ignored).total.item() < 0.01
    nothing = Targets(*(part[:0] for part in (ignored.pictures, ignored.classes, ignored.boxes, ignored.ignored)))
    assert detection_loss(NANO.heads, heads, nothing).objectness.item() > 10.0


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.2)
    assert max(shares) == 1.0
    assert shares[-1] < 0.03


@pytest.mark.timeout(400)  # torch alone takes seconds to import its optimisers, on a machine that may be busy
def test_a_tiny_network_overfits_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CROPPED", 0.0)
    monkeypatch.setattr(batches, "RECOLOURED", 0.0)
    sample = SAMPLES[:1]
    learner = trainer(100)
    losses = []
    for step in range(100):
        images, targets = draw_batch(sample, 0, step, 2, (128,))
        losses.append(learner.train_step(images, targets).total.item())
    # Half of what is reached: on another processor the sums round differently, and training takes another way.
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    picture = torch.from_numpy(decode(sample[0].jpeg, 128)).permute(2, 0, 1)[None].float() / 255.0
    with torch.inference_mode():
        found = postprocess(learner.averaged()(picture).numpy(), 0.3)[0]
    asked = ~sample[0].ignored
    truth = Detections(sample[0].boxes[asked], np.ones(asked.sum(), np.float32), sample[0].classes[asked])
    assert match(found, truth).recall > 0.3
    precision, f1 = evaluate(learner.averaged(), sample, 128)
    assert precision.ap50 > 0.25
    assert f1 > 0.2


def test_an_interruption_changes_nothing() -> None:
    straight, first = trainer(8), trainer(8)
    for step in range(8):
        straight.train_step(*draw_batch(SAMPLES, 3, step, 2, (64, 96)))
    for step in range(3):
        first.train_step(*draw_batch(SAMPLES, 3, step, 2, (64, 96)))
    second = trainer(8, seed=99)
    second.restore(first.save())
    assert second.step == 3
    for step in range(3, 8):
        second.train_step(*draw_batch(SAMPLES, 3, step, 2, (64, 96)))
    assert save_weights(second.averaged()) == save_weights(straight.averaged())


def test_a_step_moves_every_tensor_and_its_average() -> None:
    learner = trainer(8)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    learner.train_step(*draw_batch(SAMPLES, 3, 0, 2, (128,)))
    after, averaged = learner.network.state_dict(), learner.averaged().state_dict()
    assert after.keys() == averaged.keys() == before.keys()
    for name, value in before.items():
        assert not torch.equal(after[name], value), name
        assert not torch.equal(averaged[name], value), name


def test_tensors_lie_aligned_in_one_block() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7.0), "c": torch.full((17,), 8.0)}
    block = TensorBlock(tensors)
    assert len(block.values) == 16 + 16 + 32
    assert all(torch.equal(value, tensors[name]) for name, value in block.items())
    block.values.add_(1.0)
    assert all(torch.equal(value, tensors[name] + 1.0) for name, value in block.items())
    assert all(value.data_ptr() % 64 == block.values.data_ptr() % 64 for _, value in block.items())


def test_another_networks_state_is_refused() -> None:
    small = parse_cfg(definition(ARCHITECTURES[1], 128))
    other = DetectorTrainer(random_network(small, torch.Generator().manual_seed(0)), TrainOptions(steps=8))
    with pytest.raises(MoonjellyError, match="does not belong to this network"):
        other.restore(trainer(8).save())


def test_batches_depend_on_seed_and_step_alone() -> None:
    images, targets = draw_batch(SAMPLES, 5, 9, 3, (64, 96))
    again, same = draw_batch(SAMPLES, 5, 9, 3, (64, 96))
    other, _ = draw_batch(SAMPLES, 5, 10, 3, (64, 96))
    assert torch.equal(images, again)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(targets.boxes, same.boxes)
    assert other.shape != images.shape or not torch.equal(images, other)
    assert targets.boxes.min() >= 0.0
    assert (targets.boxes[:, :2] + targets.boxes[:, 2:] / 2).max() <= 1.0 + 1e-5


@pytest.mark.timeout(400)  # some twenty seconds of work in seven processes, on a machine that may be busy
def test_a_quick_zoo_is_trained_stopped_resumed_and_serves(tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    seen: list[str] = []

    def stop_after_drawing(name: str, progress: object) -> None:
        seen.append(name)
        if name == "nano":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_zoo(out, quick=True, report=stop_after_drawing)
    assert not (out / "zoo.toml").exists()
    with pytest.raises(ZooError, match=r"holds another training \(seed 0, quick True\)"):
        train_zoo(out, quick=True, seed=1)
    again: list[str] = []

    def stop_while_profiling() -> None:
        assert load_zoo(out).variants
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_zoo(out, quick=True, report=lambda name, _: again.append(name), profile=stop_while_profiling)
    assert not any(name.startswith("pictures") for name in again)
    again.clear()
    chosen = train_zoo(out, quick=True, report=lambda name, _: again.append(name))
    assert not again
    zoo = load_zoo(out)
    zoo.verify()
    assert zoo.classes == CLASSES
    assert [variant.name for variant in zoo.variants] == [zoo_training.variant_name(one) for one in chosen]
    executor = make_executor("onnx")
    variant = zoo.variants[0]
    executor.load(variant, zoo.source(variant.model), 1)
    image = decode(SAMPLES[0].jpeg, variant.input_size)
    assert len(executor.infer(variant.name, [FrameInput("test", 0, image)])) == 1
    executor.close()
    with pytest.raises(ZooError, match="holds a finished zoo"):
        train_zoo(out, quick=True)
