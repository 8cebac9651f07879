"""Our own small detectors, written as Darknet definitions.

All are feature pyramids (Lin et al. 2017, "Feature pyramid networks") on a plain trunk: every stage halves the picture
with a strided 3x3 convolution and adds bottlenecks; from the deepest stage features go back up, are joined with those
of each stage that has a head, and each head proposes boxes for objects of its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.models.definition import NetworkConfig
from moonjelly.scenes import CLASSES


@dataclass(frozen=True, slots=True)
class Stage:
    """One halving of the picture.

    Attributes:
        channels: after it.
        bottlenecks: residual blocks of a 1x1 and a 3x3 convolution.
        head_channels: of its head's features; 0 when it has no head. Stages with heads are the deepest ones, or all
            but the deepest, which then only feeds the pyramid.
        anchors: ``(width, height)`` in input pixels of its head.
    """

    channels: int
    bottlenecks: int = 0
    head_channels: int = 0
    anchors: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A detector.

    Attributes:
        name: of the model.
        stages: from the picture inwards.
    """

    name: str
    stages: tuple[Stage, ...]


def definition(architecture: Architecture, input_size: int) -> str:
    """The ``.cfg`` text, with ``input_size`` as the default side."""
    text = _Definition(input_size)
    ends = [_trunk(text, stage) for stage in architecture.stages]
    headed = [number for number, stage in enumerate(architecture.stages) if stage.head_channels]
    anchors = [anchor for number in headed for anchor in architecture.stages[number].anchors]
    first = len(anchors)
    flow = ends[-1]
    for number in reversed(range(headed[0], len(ends))):
        stage = architecture.stages[number]
        if number < len(ends) - 1:
            text.route(flow)
            text.convolution(stage.head_channels, 1)
            text.add("upsample", stride=2)
            text.route(-1, ends[number])
        if not stage.head_channels:
            flow = ends[number]
            continue
        flow = text.convolution(stage.head_channels, 1)
        text.convolution(stage.head_channels * 3 // 2, 3)
        text.convolution(len(stage.anchors) * (5 + len(CLASSES)), 1, plain=True)
        first -= len(stage.anchors)
        text.yolo(range(first, first + len(stage.anchors)), anchors)
    return text.text


def multiply_adds(config: NetworkConfig, input_size: int) -> int:
    """Multiply-adds of all convolutions for one square picture: what a variant costs, whatever the machine."""
    total = 0
    for layer in config.convolutions:
        side = input_size // config.shapes[layer.number].stride
        total += layer.in_channels // layer.groups * layer.filters * layer.size**2 * side * side
    return total


def _trunk(text: _Definition, stage: Stage) -> int:
    end = text.convolution(stage.channels, 3, stride=2)
    for _ in range(stage.bottlenecks):
        text.convolution(max(4, stage.channels // 2), 1)
        text.convolution(stage.channels, 3)
        end = text.add("shortcut", **{"from": -3}, activation="linear")
    return end


class _Definition:
    """Darknet text while it is written; counts its sections."""

    def __init__(self, input_size: int) -> None:
        self.text = f"[net]\nwidth={input_size}\nheight={input_size}\nchannels=3\n"
        self._count = 0

    def add(self, section: str, **values: object) -> int:
        """Append a section; its number."""
        self.text += f"\n[{section}]\n" + "".join(f"{key}={value}\n" for key, value in values.items())
        self._count += 1
        return self._count - 1

    def convolution(self, filters: int, size: int, stride: int = 1, plain: bool = False) -> int:
        """A convolution with batch normalisation and leaky units, or a plain one; its number."""
        if plain:
            return self.add("convolutional", filters=filters, size=size, stride=stride, pad=1, activation="linear")
        shape = {"filters": filters, "size": size, "stride": stride, "pad": 1}
        return self.add("convolutional", batch_normalize=1, **shape, activation="leaky")

    def route(self, *sources: int) -> None:
        """Join earlier sections; nothing to do for the section just written alone."""
        if sources != (self._count - 1,):
            self.add("route", layers=", ".join(map(str, sources)))

    def yolo(self, mask: range, anchors: list[tuple[int, int]]) -> None:
        """A head for some of the anchors."""
        listed = ", ".join(f"{width},{height}" for width, height in anchors)
        chosen = ",".join(map(str, mask))
        # scale_x_y 2 lets a cell answer for centres half a cell beyond it, as the loss expects.
        self.add("yolo", mask=chosen, anchors=listed, classes=len(CLASSES), num=len(anchors), scale_x_y=2.0)


_SMALL, _MIDDLE, _LARGE = ((6, 12), (12, 22)), ((26, 26), (20, 52)), ((56, 50), (110, 120))

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("nano", (Stage(6), Stage(10), Stage(14, 0, 12, _SMALL), Stage(22, 1, 14, _MIDDLE + _LARGE))),
    Architecture(
        "small", (Stage(8), Stage(14), Stage(18, 1, 14, _SMALL), Stage(24, 1, 16, _MIDDLE), Stage(28, 0, 18, _LARGE))
    ),
    Architecture(
        "medium", (Stage(10), Stage(18), Stage(26, 1, 16, _SMALL), Stage(32, 1, 20, _MIDDLE), Stage(36, 1, 20, _LARGE))
    ),
    Architecture(
        "large", (Stage(14), Stage(26), Stage(36, 2, 20, _SMALL), Stage(40, 1, 22, _MIDDLE), Stage(44, 1, 22, _LARGE))
    ),
)
