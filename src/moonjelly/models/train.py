"""Training steps of a detector: optimiser, learning-rate schedule, averaged weights, and a state that can be saved.

Everything that training depends on is in the state and the arguments: the same start, batches and number of threads
give the same weights on the same build of torch, also when training was interrupted in between.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moonjelly.errors import ModelError
from moonjelly.models.block import TensorBlock
from moonjelly.models.darknet import DarknetNetwork
from moonjelly.models.loss import LossTerms, Targets, detection_loss

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
LAST_RATE = 0.02
"""Share of the learning rate that is left at the end."""
MAX_GRADIENT_NORM = 10.0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        steps: batches in all.
        learning_rate: at its highest.
        weight_decay: of convolution kernels.
        average: decay of the averaged weights per step; lower at the start.
    """

    steps: int
    learning_rate: float = 4e-3
    weight_decay: float = 1e-4
    average: float = 0.998


class DetectorTrainer:
    """Trains one network step by step.

    Args:
        network: in training mode; changed in place.
        options: how.
    """

    def __init__(self, network: DarknetNetwork, options: TrainOptions) -> None:
        self.network = network.train()
        self.options = options
        self.step = 0
        parameters, saved = dict(network.named_parameters()), network.state_dict().keys()
        kernels = {name: value for name, value in parameters.items() if value.ndim > 1}
        others = {name: value for name, value in parameters.items() if value.ndim <= 1}
        statistics = {
            name: value for name, value in network.named_buffers() if name in saved and value.is_floating_point()
        }
        self._values = [_moved(tensors) for tensors in (kernels, others, statistics)]
        self._average = [TensorBlock(dict(block.items())) for block in self._values]
        self._gradients = [_gradients(tensors) for tensors in (kernels, others)]
        self._trained = [nn.Parameter(block.values) for block in self._values[:2]]
        for block, gradients in zip(self._trained, self._gradients, strict=True):
            block.grad = gradients.values
        groups = [
            {"params": [block], "weight_decay": decay}
            for block, decay in zip(self._trained, (options.weight_decay, 0.0), strict=True)
        ]
        self._optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99), eps=1e-8)

    def train_step(self, images: Tensor, targets: Targets) -> LossTerms:
        """Learn from one batch.

        Args:
            images: ``(b, 3, s, s)`` float32 RGB in [0, 1]; the memory format of the whole step is theirs.
            targets: its truth.

        Raises:
            ModelError: the loss is not finite.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = self.options.learning_rate * rate_share(self.step, self.options.steps)
        for gradients in self._gradients:
            gradients.values.zero_()
        terms = detection_loss(self.network.config.heads, self.network.heads(images), targets)
        if not math.isfinite(float(terms.total.detach())):
            raise ModelError(f"training diverged at step {self.step}: the loss is {float(terms.total.detach())}")
        terms.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
        self._optimiser.step()
        self.step += 1
        self._follow()
        return terms

    def averaged(self) -> DarknetNetwork:
        """A copy of the network with the averaged weights, in evaluation mode."""
        copy = DarknetNetwork(self.network.config, self._epsilon())
        copy.load_state_dict({**self.network.state_dict(), **self._averages()})
        return copy.eval()

    def save(self) -> bytes:
        """The whole state, as an uncompressed ``.npz`` file without pickled objects."""
        arrays = {"step": np.asarray(self.step)}
        for prefix, tensors in (("network", self.network.state_dict()), ("average", self._averages())):
            arrays.update({f"{prefix}/{name}": value.detach().numpy() for name, value in tensors.items()})
        for number, state in self._optimiser.state_dict()["state"].items():
            arrays.update({f"optimiser/{number}/{name}": value.numpy() for name, value in state.items()})
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    def restore(self, data: bytes) -> None:
        """Continue from what :meth:`save` returned for the same network and options.

        Raises:
            ModelError: it is of another network, or not readable.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = dict(file)
            self.network.load_state_dict(_part(arrays, "network"))
            average = _part(arrays, "average")
            for name, kept in self._averages().items():
                kept.copy_(average[name])
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in _part(arrays, "optimiser").items():
                number, _, field = name.partition("/")
                state.setdefault(int(number), {})[field] = value
            self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
            self.step = int(arrays["step"])
        except (KeyError, ValueError, OSError, RuntimeError) as fault:
            raise ModelError(f"the saved training state does not belong to this network: {fault}") from fault

    def _follow(self) -> None:
        decay = min(self.options.average, (1.0 + self.step) / (10.0 + self.step))
        for kept, block in zip(self._average, self._values, strict=True):
            kept.values.lerp_(block.values, 1.0 - decay)

    def _averages(self) -> dict[str, Tensor]:
        return {name: value for block in self._average for name, value in block.items()}

    def _epsilon(self) -> float:
        norms = [block.norm.eps for block in self.network.blocks() if block.norm is not None]
        return norms[0] if norms else 1e-6


def rate_share(step: int, steps: int) -> float:
    """Learning rate at ``step`` as a share of its highest: a linear rise, then half a cosine."""
    rise = max(1.0, WARM_UP * steps)
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1.0, steps - rise))
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * done))


def _moved(tensors: Mapping[str, Tensor]) -> TensorBlock:
    block = TensorBlock(tensors)
    for name, value in block.items():
        tensors[name].data = value
    return block


def _gradients(parameters: Mapping[str, Tensor]) -> TensorBlock:
    block = TensorBlock({name: torch.zeros_like(value) for name, value in parameters.items()})
    for name, value in block.items():
        parameters[name].grad = value
    return block


def _part(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> dict[str, Tensor]:
    return {
        name[len(prefix) + 1 :]: torch.from_numpy(value.copy())
        for name, value in arrays.items()
        if name.startswith(f"{prefix}/")
    }
