"""What a Darknet network is: one frozen dataclass per kind of section.

Section numbers count from 0 after ``[net]``, as Darknet prints them and as ``[route]`` and ``[shortcut]`` use them.
A network is fully convolutional: the input size that a definition states is a default and nothing depends on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ACTIVATIONS = ("linear", "leaky", "relu", "mish", "swish", "logistic")
"""``leaky`` has slope 0.1 below zero."""

BOX_VALUES = 5
"""Values per anchor before the classes: four of the box and the objectness."""

DARKNET_EPSILON = 1e-6
"""Of batch normalisation in OpenCV's reader; Darknet has 1e-6 or 1e-5, by version. It shows where variance is tiny."""

TORCH_EPSILON = 1e-5
"""Of batch normalisation in torch, hence of networks that were trained there."""

MAX_LOG_SIDE = 16.0
"""Bound on tw and th: a side of millions of anchors means nothing, but infinity would spoil training."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What flows between two sections: ``channels`` at ``1 / stride`` of the input's width and height."""

    channels: int
    stride: int


@dataclass(frozen=True, slots=True)
class Convolutional:
    """``[convolutional]``: convolution, batch normalisation or bias, activation.

    Attributes:
        number: section number.
        in_channels: channels of its input.
        filters: output channels.
        size: kernel side.
        stride: of the kernel.
        padding: pixels added on every side.
        groups: divides ``in_channels`` and ``filters``.
        batch_normalize: batch normalisation instead of a bias.
        activation: one of :data:`ACTIVATIONS`.
    """

    number: int
    in_channels: int
    filters: int
    size: int
    stride: int
    padding: int
    groups: int
    batch_normalize: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``[shortcut]``: the sum of the previous section and ``sources``, then an activation."""

    number: int
    sources: tuple[int, ...]
    activation: str


@dataclass(frozen=True, slots=True)
class Route:
    """``[route]``: concatenates channels of ``sources``; of each only group ``group_id`` of ``groups``."""

    number: int
    sources: tuple[int, ...]
    groups: int
    group_id: int


@dataclass(frozen=True, slots=True)
class Upsample:
    """``[upsample]``: repeats every pixel ``stride`` times in both directions."""

    number: int
    stride: int


@dataclass(frozen=True, slots=True)
class MaxPool:
    """``[maxpool]``: ``padding`` pixels in all, of which ``padding // 2`` above and to the left.

    Stride 1 and several sizes beside one another, joined by a ``[route]``, are spatial pyramid pooling (SPP).
    """

    number: int
    size: int
    stride: int
    padding: int


@dataclass(frozen=True, slots=True)
class Dropout:
    """``[dropout]``: active in training only."""

    number: int
    probability: float


@dataclass(frozen=True, slots=True)
class Yolo:
    """``[yolo]``: a detection head.

    Attributes:
        number: section number.
        anchors: ``(width, height)`` in input pixels of the anchors that ``mask`` selects.
        classes: count.
        scale_x_y: stretches the centre's range beyond its cell (YOLOv4, section 3.4 "eliminate grid sensitivity").
        new_coords: Scaled-YOLOv4's boxes: values arrive after a sigmoid, sides are ``(2 t)^2`` anchors.
        stride: input pixels per cell.
    """

    number: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_x_y: float
    new_coords: bool
    stride: int


Section = Convolutional | Shortcut | Route | Upsample | MaxPool | Dropout | Yolo


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network that fits together: every source exists and has the channels and stride that are needed.

    Attributes:
        width: default input width in pixels.
        height: default input height in pixels.
        channels: of the input; 3 for RGB.
        sections: in file order.
        shapes: output of each section; a ``[yolo]`` section repeats its input's.
    """

    width: int
    height: int
    channels: int
    sections: tuple[Section, ...]
    shapes: tuple[Shape, ...]

    @property
    def heads(self) -> tuple[Yolo, ...]:
        """The ``[yolo]`` sections, in file order."""
        return tuple(section for section in self.sections if isinstance(section, Yolo))

    @property
    def convolutions(self) -> tuple[Convolutional, ...]:
        """The ``[convolutional]`` sections, in file order: those that have weights."""
        return tuple(section for section in self.sections if isinstance(section, Convolutional))

    @property
    def class_count(self) -> int:
        """Classes that every head tells apart."""
        return self.heads[0].classes

    @property
    def stride(self) -> int:
        """Input width and height must be multiples of this."""
        return math.lcm(*(shape.stride for shape in self.shapes))

    def candidates(self, width: int, height: int) -> int:
        """Boxes ``n`` that the heads together propose for an input of ``width`` x ``height``."""
        return sum(len(head.anchors) * (width // head.stride) * (height // head.stride) for head in self.heads)
