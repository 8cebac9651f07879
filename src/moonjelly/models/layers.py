"""One torch module per kind of Darknet section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from moonjelly.models.definition import (
    BOX_VALUES,
    MAX_LOG_SIDE,
    Convolutional,
    Dropout,
    MaxPool,
    Route,
    Section,
    Shortcut,
    Upsample,
    Yolo,
)


def make_layer(section: Section, epsilon: float) -> nn.Module:
    """The module that computes ``section``; its weights are uninitialised.

    Args:
        section: what to compute.
        epsilon: of batch normalisation.
    """
    if isinstance(section, Convolutional):
        return ConvBlock(section, epsilon)
    if isinstance(section, Shortcut):
        return Sum(section)
    if isinstance(section, Route):
        return Concatenation(section)
    if isinstance(section, Upsample):
        return nn.Upsample(scale_factor=section.stride, mode="nearest")
    if isinstance(section, MaxPool):
        return Pool(section)
    if isinstance(section, Dropout):
        return nn.Dropout(section.probability)
    return YoloHead(section)


def _activation(name: str) -> nn.Module:
    modules: dict[str, nn.Module] = {
        "linear": nn.Identity(),
        "leaky": nn.LeakyReLU(0.1, inplace=True),
        "relu": nn.ReLU(inplace=True),
        "mish": nn.Mish(inplace=True),
        "swish": nn.SiLU(inplace=True),
        "logistic": nn.Sigmoid(),
    }
    return modules[name]


class ConvBlock(nn.Module):
    """Convolution, batch normalisation or bias, activation."""

    def __init__(self, section: Convolutional, epsilon: float) -> None:
        super().__init__()
        self.section = section
        # Built without memory, then given some: torch's own initialisation would be thrown away.
        self.conv = nn.Conv2d(
            section.in_channels,
            section.filters,
            section.size,
            section.stride,
            section.padding,
            groups=section.groups,
            bias=not section.batch_normalize,
            device="meta",
        ).to_empty(device="cpu")
        self.norm = nn.BatchNorm2d(section.filters, eps=epsilon) if section.batch_normalize else None
        self.activation = _activation(section.activation)

    def forward(self, flow: Tensor) -> Tensor:
        """``(b, in_channels, h, w)`` to ``(b, filters, h / stride, w / stride)``."""
        flow = self.conv(flow)
        if self.norm is not None:
            flow = self.norm(flow)
        return cast(Tensor, self.activation(flow))

    def fuse(self) -> None:
        """Fold the batch normalisation into the convolution, in place."""
        if self.norm is not None:
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = None

    def named_arrays(self) -> dict[str, Tensor]:
        """The tensors under the names of :func:`~moonjelly.models.weights.parameter_shapes`."""
        if self.norm is None:
            return {"bias": cast(Tensor, self.conv.bias), "weight": self.conv.weight}
        return {
            "bias": self.norm.bias,
            "scale": self.norm.weight,
            "mean": cast(Tensor, self.norm.running_mean),
            "variance": cast(Tensor, self.norm.running_var),
            "weight": self.conv.weight,
        }


class Sum(nn.Module):
    """``[shortcut]``."""

    def __init__(self, section: Shortcut) -> None:
        super().__init__()
        self.activation = _activation(section.activation)

    def forward(self, flow: Tensor, others: Sequence[Tensor]) -> Tensor:
        """The activation of the sum; all of one shape."""
        for other in others:
            flow = flow + other
        return cast(Tensor, self.activation(flow))


class Concatenation(nn.Module):
    """``[route]``."""

    def __init__(self, section: Route) -> None:
        super().__init__()
        self.groups = section.groups
        self.group_id = section.group_id

    def forward(self, flows: Sequence[Tensor]) -> Tensor:
        """One group of the channels of each, concatenated."""
        if self.groups > 1:
            flows = [flow.chunk(self.groups, dim=1)[self.group_id] for flow in flows]
        return flows[0] if len(flows) == 1 else torch.cat(tuple(flows), dim=1)


class Pool(nn.Module):
    """``[maxpool]``; where the padding is odd the larger part is below and to the right."""

    def __init__(self, section: MaxPool) -> None:
        super().__init__()
        self.section = section
        self.before = section.padding // 2
        self.after = section.padding - self.before

    def forward(self, flow: Tensor) -> Tensor:
        """``(b, c, h, w)`` to ``(b, c, h / stride, w / stride)``."""
        size, stride = self.section.size, self.section.stride
        # torch pads symmetrically; windows that divide the picture evenly never reach the padding after it.
        if self.before == self.after and 2 * self.before <= size:
            return functional.max_pool2d(flow, size, stride, self.before)
        if self.before == 0 and size == stride:
            return functional.max_pool2d(flow, size, stride)
        edges = (self.before, self.after, self.before, self.after)
        return functional.max_pool2d(functional.pad(flow, edges, value=float("-inf")), size, stride)


class YoloHead(nn.Module):
    """``[yolo]``: raw values by anchor, and their meaning as boxes."""

    anchors: Tensor

    def __init__(self, section: Yolo) -> None:
        super().__init__()
        self.section = section
        self.register_buffer("anchors", torch.tensor(section.anchors, dtype=torch.float32), persistent=False)

    def forward(self, flow: Tensor) -> Tensor:
        """``(b, a (5 + C), h, w)`` to a view ``(b, a, h, w, 5 + C)``."""
        split = torch.unflatten(flow, 1, (len(self.section.anchors), BOX_VALUES + self.section.classes))
        return split.permute(0, 1, 3, 4, 2)

    def decode(self, raw: Tensor, height: int, width: int) -> Tensor:
        """Boxes and probabilities, always in float32: half precision cannot tell neighbouring pixels apart.

        Args:
            raw: ``(b, a, rows, columns, 5 + C)`` as of :meth:`forward`.
            height: of the input in pixels.
            width: of the input in pixels.

        Returns:
            ``(b, a rows columns, 5 + C)`` as :meth:`moonjelly.models.darknet.DarknetNetwork.forward` describes.
        """
        raw = raw.float()
        xy, log_sides, confidences = raw[..., :2], raw[..., 2:4], raw[..., 4:]
        if self.section.new_coords:
            sides = (2.0 * log_sides).square()
        else:
            xy, sides, confidences = xy.sigmoid(), log_sides.clamp(max=MAX_LOG_SIDE).exp(), confidences.sigmoid()
        rows, columns = raw.shape[2:4]
        column = torch.arange(columns, device=raw.device, dtype=torch.float32).view(1, 1, 1, columns)
        row = torch.arange(rows, device=raw.device, dtype=torch.float32).view(1, 1, rows, 1)
        scale = self.section.scale_x_y
        xy = xy * scale - 0.5 * (scale - 1.0)
        anchors = self.anchors.float().view(1, -1, 1, 1, 2)
        box = (
            (xy[..., 0] + column) / columns,
            (xy[..., 1] + row) / rows,
            sides[..., 0] * (anchors[..., 0] / width),
            sides[..., 1] * (anchors[..., 1] / height),
        )
        return torch.cat((torch.stack(box, dim=-1), confidences), dim=-1).flatten(1, 3)
