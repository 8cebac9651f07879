"""Jellyfish's per-size ``.pth`` checkpoints.

Such a file holds the ``state_dict`` of a torch port of the network that a ``.cfg`` defines. Its key names are not
known, and differ between ports, so tensors are mapped by order and checked by shape: a checkpoint whose modules are
registered in another order than the definition's sections is refused, not misread, unless the shapes agree by chance.
Where the names end in torch's own (``running_mean``, ``running_var``, ``weight``, ``bias``) they settle the order
within a batch normalisation. Nothing but tensors is unpickled.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from moonjelly.errors import ModelError
from moonjelly.models.darknet import DarknetNetwork
from moonjelly.models.definition import TORCH_EPSILON, NetworkConfig
from moonjelly.models.weights import parameter_shapes

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_TORCH_NAMES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
_TORCH_ORDER = ("scale", "bias", "mean", "variance")


def load_checkpoint(config: NetworkConfig, data: bytes) -> DarknetNetwork:
    """Build a network with the tensors of a checkpoint, in evaluation mode.

    Args:
        config: the definition that the checkpoint was trained with (classes and anchors included).
        data: content of a ``.pth`` file written by ``torch.save`` of a ``state_dict``, bare or under ``state_dict``,
            ``model_state_dict`` or ``model``.

    Raises:
        ModelError: the file is no such checkpoint, or a tensor does not fit the section at its place.
    """
    arrays = _by_section(config, iter(_tensors(data)))
    network = DarknetNetwork(config, TORCH_EPSILON)
    network.assign(arrays)
    return network.eval()


def _by_section(config: NetworkConfig, tensors: Iterator[tuple[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The tensors of every convolution, in order and of the right shapes."""
    arrays: list[dict[str, Tensor]] = []
    for section in config.convolutions:
        place = f"section {section.number} [convolutional]"
        wanted = parameter_shapes(section)
        found = [next(tensors, None) for _ in wanted]
        names = ("weight", *_vector_names(found[1:]))
        arrays.append(
            {name: _checked(place, name, wanted[name], pair) for name, pair in zip(names, found, strict=True)}
        )
    left_over = [name for name, _ in tensors]
    if left_over:
        raise ModelError(
            f"the checkpoint has {len(left_over)} tensors more than the network's convolutions, beginning with "
            f"'{left_over[0]}'; use the definition that it was trained with"
        )
    return arrays


def _tensors(data: bytes) -> Iterable[tuple[str, Tensor]]:
    try:
        content: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise ModelError(
            f"the checkpoint cannot be read as tensors alone ({reason}); save it again with "
            "torch.save(model.state_dict(), path)"
        ) from fault
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError("the checkpoint holds no state_dict; save it again with torch.save(model.state_dict(), path)")
    # Counters of batches and stored anchors are no weights: a kernel has four dimensions and all others one.
    return (
        (str(name), value) for name, value in content.items() if value.dim() in (1, 4) and value.is_floating_point()
    )


def _vector_names(found: list[tuple[str, Tensor] | None]) -> tuple[str, ...]:
    """What the vectors after a kernel are: a bias, or four of a batch normalisation."""
    if len(found) == 1:
        return ("bias",)
    names = [_TORCH_NAMES.get(pair[0].rpartition(".")[2], "") if pair else "" for pair in found]
    return tuple(names) if sorted(names) == sorted(_TORCH_ORDER) else _TORCH_ORDER


def _checked(place: str, name: str, shape: tuple[int, ...], pair: tuple[str, Tensor] | None) -> Tensor:
    if pair is None:
        raise ModelError(f"{place}: the checkpoint ends before '{name}'; use the definition that it was trained with")
    found, tensor = pair
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"{place}: '{name}' must be {shape} but the checkpoint's next tensor '{found}' is {tuple(tensor.shape)}; "
            "tensors are mapped by order and shape, so use the definition that it was trained with (classes included)"
        )
    if not torch.isfinite(tensor).all():
        raise ModelError(f"{place}: '{name}' ('{found}' in the checkpoint) has values that are not finite")
    return tensor
