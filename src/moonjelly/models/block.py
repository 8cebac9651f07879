"""Named tensors side by side in one block of memory.

Small networks spend much of a training step on the number of operations, not on their size: what is done to every
number alike then takes one operation for the block instead of one for every tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

ALIGNMENT = 16
"""Tensors begin at multiples of so many numbers, 64 bytes, as torch lays them alone; the gaps hold zeros."""


class TensorBlock:
    """Float32 tensors in one block of memory, which begins as a copy of them.

    Attributes:
        values: ``(n,)``, the whole block.

    Args:
        tensors: by name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._shapes = {name: value.shape for name, value in tensors.items()}
        self.values = torch.zeros(sum(_room(shape) for shape in self._shapes.values()))
        for name, view in self.items():
            view.copy_(tensors[name].detach())

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor's name and its place in the block, of the tensor's shape."""
        begin = 0
        for name, shape in self._shapes.items():
            yield name, self.values[begin : begin + shape.numel()].view(shape)
            begin += _room(shape)


def _room(shape: torch.Size) -> int:
    return -(-shape.numel() // ALIGNMENT) * ALIGNMENT
