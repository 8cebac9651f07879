"""Darknet networks as torch modules: shapes, training mode, fusion, saving, export, bad input."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cli.zoo import app as zoo_command
from moonjelly.detection import postprocess
from moonjelly.errors import ModelError
from moonjelly.models.checkpoint import load_checkpoint
from moonjelly.models.darknet import (
    DarknetNetwork,
    load_network,
    load_weights,
    parse_cfg,
    random_network,
    save_weights,
    strongest,
)
from tests.support.darknet import EVERYTHING


@pytest.fixture
def network() -> DarknetNetwork:
    made = random_network(parse_cfg(EVERYTHING), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for block in made.blocks():
            if block.norm is not None:
                for name, tensor in block.named_arrays().items():
                    if name != "weight":
                        tensor.uniform_(0.5, 1.5, generator=generator)
    return made.eval()


def images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (4, 4)])
def test_any_multiple_of_the_stride_is_an_input(network: DarknetNetwork, height: int, width: int) -> None:
    found = network(images(2, height, width))
    assert found.shape == (2, network.config.candidates(width, height), 7)
    assert found.dtype == torch.float32
    assert ((found[..., 4:] >= 0) & (found[..., 4:] <= 1)).all()


@torch.no_grad()
def test_boxes_do_not_depend_on_their_neighbours_in_the_batch(network: DarknetNetwork) -> None:
    batch = images(3)
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 63, 64), (1, 1, 64, 64), (3, 64, 64), (1, 3, 0, 64)])
def test_an_input_of_the_wrong_shape_is_refused(network: DarknetNetwork, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"takes \(batch, 3, height, width\) with both sides multiples of 4, not \("):
        network(torch.zeros(shape))


@torch.no_grad()
def test_decoding_follows_the_published_formulas(network: DarknetNetwork) -> None:
    first, second = network.heads(images(1))
    assert first.shape == (1, 2, 16, 16, 7)
    assert second.shape == (1, 2, 32, 32, 7)
    decoded = network.decode((first, second), 64, 64)
    anchor, row, column = 1, 5, 9
    value = first[0, anchor, row, column].double()
    sigmoid = value.sigmoid()
    expected = [
        (sigmoid[0] * 1.1 - 0.05 + column) / 16,
        (sigmoid[1] * 1.1 - 0.05 + row) / 16,
        value[2].exp() * 30 / 64,
        value[3].exp() * 40 / 64,
        *sigmoid[4:],
    ]
    assert decoded[0, anchor * 256 + row * 16 + column].tolist() == pytest.approx(
        [float(number) for number in expected], abs=1e-5
    )
    value = second[0, anchor, row, column].double()
    expected = [
        (value[0] * 2 - 0.5 + column) / 32,
        (value[1] * 2 - 0.5 + row) / 32,
        (2 * value[2]) ** 2 * 8 / 64,
        (2 * value[3]) ** 2 * 8 / 64,
        *value[4:],
    ]
    assert decoded[0, 512 + anchor * 1024 + row * 32 + column].tolist() == pytest.approx(
        [float(number) for number in expected], abs=1e-5
    )


@torch.no_grad()
def test_a_fused_network_computes_the_same(network: DarknetNetwork) -> None:
    before = network(images())
    assert not network.fused
    after = network.fuse()(images())
    assert network.fused
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_fused_network_can_be_neither_saved_nor_loaded(network: DarknetNetwork) -> None:
    data = save_weights(network)
    network.fuse()
    with pytest.raises(ModelError, match=r"the network is fused.*load it again and do not fuse"):
        save_weights(network)
    with pytest.raises(ModelError, match="the network is fused"):
        load_weights(network, data)


@torch.no_grad()
def test_saved_weights_load_to_the_same_network(network: DarknetNetwork) -> None:
    data = save_weights(network, seen=640)
    again = load_network(network.config, data)
    assert torch.equal(again(images()), network(images()))
    assert save_weights(again, seen=640) == data
    other = random_network(network.config, torch.Generator().manual_seed(9)).eval()
    assert load_weights(other, data).seen == 640
    assert torch.equal(other(images()), network(images()))


def test_weights_that_do_not_fit_leave_the_network_as_it_was(network: DarknetNetwork) -> None:
    data = save_weights(network)
    for broken in (data[:-4], data + b"1234", b"short"):
        with pytest.raises(ModelError):
            load_weights(network, broken)
    assert save_weights(network) == data


def test_random_networks_repeat_with_their_seed_and_expect_few_objects() -> None:
    config = parse_cfg(EVERYTHING)
    first, same, other = (save_weights(random_network(config, torch.Generator().manual_seed(s))) for s in (5, 5, 6))
    assert first == same
    assert first != other
    network = random_network(config, torch.Generator().manual_seed(5)).eval()
    assert network(images())[..., 4].mean() < 0.1


def test_training_moves_weights_and_batch_statistics() -> None:
    network = random_network(parse_cfg(EVERYTHING), torch.Generator().manual_seed(1))
    assert network.training
    before = save_weights(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    heads = network.heads(images(4))
    sum(head.square().mean() for head in heads).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in network.parameters())
    optimizer.step()
    after = save_weights(network)
    assert len(after) == len(before)
    changed = np.frombuffer(after, "<f4", offset=20) != np.frombuffer(before, "<f4", offset=20)
    assert changed.mean() > 0.9


@torch.no_grad()
def test_the_strongest_candidates_give_the_same_detections(network: DarknetNetwork) -> None:
    predictions = network(images())
    threshold = float((predictions[..., 4] * predictions[..., 5:].amax(-1)).quantile(0.99))
    few = strongest(predictions, 64)
    assert few.shape == (2, 64, 7)
    for short, full in zip(
        postprocess(few.numpy(), threshold), postprocess(predictions.numpy(), threshold), strict=True
    ):
        assert len(full) > 0
        assert short.scores.tolist() == full.scores.tolist()
    assert strongest(predictions, 10**6).shape == predictions.shape


@torch.no_grad()
def test_a_network_exports_with_a_dynamic_batch(network: DarknetNetwork) -> None:
    exported = torch.export.export(
        network.fuse(), (images(2),), dynamic_shapes=({0: torch.export.Dim("batch", max=16)},)
    )
    torch.testing.assert_close(exported.module()(images(5)), network(images(5)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_half_precision_decodes_in_single(network: DarknetNetwork) -> None:
    expected = network(images())
    found = network.half()(images().half())
    assert found.dtype == torch.float32
    assert (found[..., :2] - expected[..., :2]).abs().max() < 0.01


def renamed(network: DarknetNetwork, wrap: str | None = None, drop: int = 0, extra: bool = False) -> bytes:
    """A checkpoint as another port of the network would write it: other names, torch's order."""
    state = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    if drop:
        state = dict(list(state.items())[:-drop])
    if extra:
        state["classifier.weight"] = torch.zeros(3)
    file = io.BytesIO()
    torch.save({wrap: state, "epoch": 3} if wrap else state, file)
    return file.getvalue()


@torch.no_grad()
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_checkpoint_maps_by_order_and_shape(network: DarknetNetwork, wrap: str | None) -> None:
    loaded = load_checkpoint(network.config, renamed(network, wrap))
    assert save_weights(loaded) == save_weights(network)
    assert not loaded.training


@torch.no_grad()
@pytest.mark.parametrize("named_as_torch_does", [True, False])
def test_names_settle_the_order_within_a_batch_normalisation(
    network: DarknetNetwork, named_as_torch_does: bool
) -> None:
    state: dict[str, Tensor] = {}
    for number, block in enumerate(network.blocks()):
        arrays = block.named_arrays()
        if block.norm is None:
            order = {"weight": "w", "bias": "b"}
        elif named_as_torch_does:
            order = {"weight": "weight", "mean": "running_mean", "variance": "running_var"}
            order |= {"scale": "weight", "bias": "bias"}
        else:
            order = {"weight": "w", "scale": "p", "bias": "q", "mean": "r", "variance": "s"}
        for ours, theirs in order.items():
            state[f"down{number}.{0 if ours == 'weight' else 9}.{theirs}"] = arrays[ours]
        state[f"down{number}.9.num_batches_tracked"] = torch.tensor(7)
    file = io.BytesIO()
    torch.save(state, file)
    assert save_weights(load_checkpoint(network.config, file.getvalue())) == save_weights(network)


def test_a_checkpoint_that_does_not_fit_is_refused(network: DarknetNetwork) -> None:
    more_classes = parse_cfg(EVERYTHING.replace("filters=14", "filters=16").replace("classes=2", "classes=3"))
    with pytest.raises(
        ModelError, match=r"section 11 .*'weight' must be \(16, 12, 1, 1\).*'backbone\.layers\.11\.conv"
    ):
        load_checkpoint(more_classes, renamed(network))
    with pytest.raises(ModelError, match=r"section 16 .*the checkpoint ends before 'bias'"):
        load_checkpoint(network.config, renamed(network, drop=1))
    with pytest.raises(ModelError, match=r"1 tensors more than the network's.*'classifier\.weight'"):
        load_checkpoint(network.config, renamed(network, extra=True))


def test_a_checkpoint_that_is_no_checkpoint_is_refused(network: DarknetNetwork) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("code ran",))

    for content in (Payload(), {"weights": Payload()}, torch.nn.Linear(2, 2)):
        file = io.BytesIO()
        torch.save(content, file)
        with pytest.raises(ModelError, match="cannot be read as tensors alone"):
            load_checkpoint(network.config, file.getvalue())
    for data in (b"", b"no checkpoint", renamed(network)[:500]):
        with pytest.raises(ModelError, match="cannot be read as tensors alone"):
            load_checkpoint(network.config, data)
    file = io.BytesIO()
    torch.save([torch.zeros(3)], file)
    with pytest.raises(ModelError, match="holds no state_dict"):
        load_checkpoint(network.config, file.getvalue())


@pytest.mark.parametrize(
    ("classes", "size", "drop", "words"),
    [
        (2, 64, 0, None),
        (3, 64, 0, r"tells 2 classes apart, 3 are named"),
        (2, 65, 0, r"input size 65 is no multiple of the stride"),
        (2, 64, 1, r"the checkpoint ends before 'bias'"),
    ],
)
def test_a_zoo_of_checkpoints_is_verified_to_the_last_tensor(
    network: DarknetNetwork, tmp_path: Path, classes: int, size: int, drop: int, words: str | None
) -> None:
    (tmp_path / "mine.cfg").write_text(EVERYTHING)
    (tmp_path / "mine.pth").write_bytes(renamed(network, drop=drop))
    (tmp_path / "zoo.toml").write_text(
        f"""format = 1
name = "mine"
classes = {["a", "b", "c"][:classes]}

[models.mine]
architecture = "pth"
definition = "mine.cfg"
weights = "mine.pth"

[[variants]]
name = "mine"
model = "mine"
input_size = {size}
"""
    )
    command = ["verify", str(tmp_path)]
    if words is None:
        assert not zoo_command(command, standalone_mode=False)
        return
    with pytest.raises(ModelError, match=words):
        zoo_command(command, standalone_mode=False)
