"""Darknet networks as torch modules: build, load, save, fuse.

The forward pass has no data-dependent control flow and no input size baked in, so that it exports with a dynamic batch
and can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from moonjelly.errors import ModelError
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.definition import DARKNET_EPSILON, NetworkConfig, Route, Section, Shortcut, Yolo
from moonjelly.models.layers import ConvBlock, YoloHead, make_layer
from moonjelly.models.weights import ConvolutionArrays, Header, decode_weights, encode_weights

__all__ = [
    "DarknetNetwork",
    "load_network",
    "load_weights",
    "parse_cfg",
    "random_network",
    "save_weights",
    "strongest",
]

OBJECTNESS_PRIOR_LOGIT = -4.6
"""Initial bias of the objectness: 1 % of the cells hold an object (Lin et al. 2017, "Focal loss", section 3.3)."""


class DarknetNetwork(nn.Module):
    """A detector built from a definition.

    A fresh module holds uninitialised weights: make one with :func:`load_network` or :func:`random_network`.

    Args:
        config: what to build.
        epsilon: of batch normalisation.
    """

    def __init__(self, config: NetworkConfig, epsilon: float = DARKNET_EPSILON) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(make_layer(section, epsilon) for section in config.sections)
        last_use = {source: section.number for section in config.sections for source in _sources(section)}
        self._needed = frozenset(last_use)
        self._released: dict[int, list[int]] = {}
        for source, number in last_use.items():
            self._released.setdefault(number, []).append(source)

    def forward(self, images: Tensor) -> Tensor:
        """Detect.

        Args:
            images: ``(b, 3, h, w)`` float, RGB in [0, 1]; ``h`` and ``w`` multiples of ``config.stride``.

        Returns:
            ``(b, n, 5 + C)`` float32: centre x, centre y, width, height as fractions of the picture, objectness,
            class probabilities given an object. ``n`` is ``config.candidates(w, h)``.

        Raises:
            ModelError: the input has the wrong shape.
        """
        return self.decode(self.heads(images), images.shape[2], images.shape[3])

    def heads(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw outputs for training, one per ``[yolo]`` section in the order of ``config.heads``.

        Args:
            images: as of :meth:`forward`.

        Returns:
            Each ``(b, anchors, h / stride, w / stride, 5 + C)``: tx, ty, tw, th, objectness and class values, as logits
            (with ``new_coords`` after the sigmoid).

        Raises:
            ModelError: the input has the wrong shape.
        """
        self._check(images)
        kept: dict[int, Tensor] = {}
        raw: list[Tensor] = []
        flow = images
        for number, (section, layer) in enumerate(zip(self.config.sections, self.layers, strict=True)):
            if isinstance(section, Yolo):
                raw.append(layer(flow))
            elif isinstance(section, Route):
                flow = layer([kept[source] for source in section.sources])
            elif isinstance(section, Shortcut):
                flow = layer(flow, [kept[source] for source in section.sources])
            else:
                flow = layer(flow)
            if number in self._needed:
                kept[number] = flow
            for source in self._released.get(number, ()):
                del kept[source]
        return tuple(raw)

    def decode(self, heads: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Boxes and probabilities from :meth:`heads`; differentiable.

        Args:
            heads: of one forward pass.
            height: of the input in pixels.
            width: of the input in pixels.

        Returns:
            As :meth:`forward`, heads one after another, within a head by anchor, row, column.
        """
        modules = [layer for layer in self.layers if isinstance(layer, YoloHead)]
        decoded = [module.decode(raw, height, width) for module, raw in zip(modules, heads, strict=True)]
        return torch.cat(decoded, dim=1)

    def fuse(self) -> DarknetNetwork:
        """Fold batch normalisation into the convolutions, in place, for inference.

        A fused network is in evaluation mode for good: it can be neither trained nor saved.

        Returns:
            Itself.
        """
        self.eval()
        for block in self.blocks():
            block.fuse()
        return self

    def assign(self, arrays: Sequence[Mapping[str, Tensor]]) -> None:
        """Replace all weights.

        Args:
            arrays: per ``config.convolutions`` the tensors of
                :func:`~moonjelly.models.weights.parameter_shapes`, by name.

        Raises:
            ModelError: the network is fused.
        """
        _require_unfused(self)
        with torch.no_grad():
            for block, named in zip(self.blocks(), arrays, strict=True):
                for name, tensor in block.named_arrays().items():
                    tensor.copy_(named[name])

    @property
    def fused(self) -> bool:
        """Whether :meth:`fuse` was called."""
        return any(block.section.batch_normalize and block.norm is None for block in self.blocks())

    def blocks(self) -> list[ConvBlock]:
        """The convolutions, in the order of ``config.convolutions``."""
        return [layer for layer in self.layers if isinstance(layer, ConvBlock)]

    def _check(self, images: Tensor) -> None:
        stride, channels = self.config.stride, self.config.channels
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != channels or shape[2] % stride or shape[3] % stride or 0 in shape[2:]:
            raise ModelError(
                f"the network takes (batch, {channels}, height, width) with both sides multiples of {stride}, "
                f"not {shape}; resize the picture"
            )


def load_network(config: NetworkConfig, data: bytes) -> DarknetNetwork:
    """Build a network with the content of a ``.weights`` file, in evaluation mode.

    Raises:
        ModelError: the weights do not belong to the network; raised before anything of it is allocated.
    """
    _, arrays = decode_weights(config, data)
    network = DarknetNetwork(config)
    network.assign(_tensors(arrays))
    return network.eval()


def load_weights(network: DarknetNetwork, data: bytes) -> Header:
    """Replace the weights of an unfused network by the content of a ``.weights`` file.

    Raises:
        ModelError: the weights do not belong to the network, which is left as it was.
    """
    header, arrays = decode_weights(network.config, data)
    network.assign(_tensors(arrays))
    return header


def save_weights(network: DarknetNetwork, seen: int = 0) -> bytes:
    """The content of a ``.weights`` file.

    Args:
        network: not fused.
        seen: images seen in training, for the header.

    Raises:
        ModelError: the network is fused.
    """
    _require_unfused(network)
    arrays = [
        {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in block.named_arrays().items()}
        for block in network.blocks()
    ]
    return encode_weights(network.config, arrays, Header(seen=seen))


def random_network(config: NetworkConfig, generator: torch.Generator) -> DarknetNetwork:
    """Build a network with random weights, in training mode.

    Kernels are Kaiming normal for leaky units; a head begins by believing that 1 % of its cells hold an object.
    """
    network = DarknetNetwork(config)
    with torch.no_grad():
        for block in network.blocks():
            nn.init.kaiming_normal_(block.conv.weight, a=0.1, generator=generator)
            for name, tensor in block.named_arrays().items():
                if name != "weight":
                    tensor.fill_(1.0 if name in ("scale", "variance") else 0.0)
        for section in config.heads:
            before = network.layers[section.number - 1]
            if isinstance(before, ConvBlock):
                values = before.named_arrays()["bias"].view(len(section.anchors), -1)
                values[:, 4] = OBJECTNESS_PRIOR_LOGIT
    return network.train()


def strongest(predictions: Tensor, count: int) -> Tensor:
    """The ``count`` candidates of each picture with the highest score (objectness times best class).

    Of fixed size, hence fit for a CUDA graph or an exported graph, and much less to copy to the host. NMS on it equals
    NMS on everything unless more than ``count`` candidates reach the score threshold.

    Args:
        predictions: ``(b, n, 5 + C)`` as of :meth:`DarknetNetwork.forward`.
        count: ``k``; all are kept when there are fewer.

    Returns:
        ``(b, k, 5 + C)``, best first.
    """
    scores = predictions[..., 4] * predictions[..., 5:].amax(dim=-1)
    chosen = scores.topk(min(count, predictions.shape[1]), dim=1).indices
    return predictions.gather(1, chosen[..., None].expand(-1, -1, predictions.shape[2]))


def _tensors(arrays: Sequence[ConvolutionArrays]) -> list[dict[str, Tensor]]:
    # Copied, because torch wants memory that it may write to.
    return [{name: torch.tensor(array) for name, array in named.items()} for named in arrays]


def _require_unfused(network: DarknetNetwork) -> None:
    if network.fused:
        raise ModelError("the network is fused, its batch normalisation is gone; load it again and do not fuse it")


def _sources(section: Section) -> tuple[int, ...]:
    return section.sources if isinstance(section, Route | Shortcut) else ()
