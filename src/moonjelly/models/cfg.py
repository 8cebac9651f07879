"""Reads Darknet ``.cfg`` text into a :class:`~moonjelly.models.definition.NetworkConfig`.

Format: AlexeyAB/darknet, ``src/parser.c`` and the wiki page "CFG Parameters in the different layers". Every key of a
section must be one that is read here, one that matters to training alone, or one whose value changes nothing:
a misspelt or unsupported key is an error and not a different network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from moonjelly.errors import ModelError
from moonjelly.models.definition import (
    ACTIVATIONS,
    BOX_VALUES,
    Convolutional,
    Dropout,
    MaxPool,
    NetworkConfig,
    Route,
    Section,
    Shape,
    Shortcut,
    Upsample,
    Yolo,
)

MAX_SECTIONS = 2048
MAX_CHANNELS = 1 << 16
MAX_SIDE = 1 << 13
MAX_KERNEL = 64
MAX_STRIDE = 1024

# fmt: off
_TRAINING_KEYS = frozenset({
    "burnin_update", "clip", "dont_update", "learning_rate", "onlyforward", "stopbackward", "train_only_bn",
    "grad_centr", "dropblock", "dropblock_size_rel", "dropblock_size_abs", "jitter", "resize", "random",
    "ignore_thresh", "truth_thresh", "iou_thresh", "iou_thresh_kind", "iou_loss", "cls_normalizer", "iou_normalizer",
    "obj_normalizer", "delta_normalizer", "max_delta", "nms_kind", "beta_nms", "label_smooth_eps", "focal_loss",
    "counters_per_class", "objectness_smooth", "show_details", "max",
})
# fmt: on
"""Read by Darknet's trainer, or by its own NMS and drawing; without effect on what the network computes."""

_NEUTRAL_VALUES = {
    "dilation": "1",
    "flipped": "0",
    "binary": "0",
    "xnor": "0",
    "antialiasing": "0",
    "assisted_excitation": "0",
    "wait_stream": "0",
    "dontload": "0",
    "dontloadscales": "0",
    "reverse": "0",
    "scale": "1",
    "weights_type": "none",
    "maxpool_depth": "0",
}
"""Keys that change what a network computes, and the one value at which they do not."""


def parse_cfg(text: str) -> NetworkConfig:
    """Parse and check a network definition.

    Args:
        text: content of a ``.cfg`` file.

    Raises:
        ModelError: names the section's number and line, the key, its value and what is supported.
    """
    first, *rest = _split(text)
    if first.kind not in ("net", "network"):
        raise ModelError(f"a network definition begins with [net], this one with [{first.kind}] in line {first.line}")
    width, height = (first.integer(key, 416, 1, MAX_SIDE) for key in ("width", "height"))
    builder = _Builder(Shape(first.integer("channels", 3, 1, MAX_CHANNELS), 1))
    for block in rest:
        builder.add(block)
    config = NetworkConfig(width, height, builder.source.channels, tuple(builder.sections), tuple(builder.shapes))
    _check_whole(config, first)
    return config


def _check_whole(config: NetworkConfig, net: _Block) -> None:
    if not config.heads:
        raise ModelError("the network has no [yolo] section; only detectors with [yolo] heads are supported")
    for head in config.heads[1:]:
        if head.classes != config.class_count:
            raise ModelError(
                f"section {head.number} [yolo]: 'classes' = {head.classes} but section {config.heads[0].number} has "
                f"{config.class_count}; give all [yolo] sections the same classes"
            )
    if config.stride > MAX_STRIDE:
        raise ModelError(f"the network shrinks its input {config.stride} times; at most {MAX_STRIDE} is supported")
    for key, side in (("width", config.width), ("height", config.height)):
        if side % config.stride:
            raise net.fault(key, str(side), f"use a multiple of the network's stride {config.stride}")


@dataclass
class _Block:
    """One section as text; ``number`` is -1 for ``[net]``."""

    kind: str
    number: int
    line: int
    values: dict[str, str] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    @property
    def title(self) -> str:
        if self.number < 0:
            return f"[{self.kind}] (line {self.line})"
        return f"section {self.number} [{self.kind}] (line {self.line})"

    def fault(self, key: str, value: str | None, remedy: str) -> ModelError:
        if value is None:
            return ModelError(f"{self.title}: '{key}' is missing; {remedy}")
        return ModelError(f"{self.title}: '{key}' = {value!r} is not supported; {remedy}")

    def text(self, key: str) -> str | None:
        self.read.add(key)
        return self.values.get(key)

    def number_of(self, key: str, default: float | None, low: float, high: float) -> float:
        text = self.text(key)
        if text is None and default is not None:
            return default
        try:
            value = float(text or "")
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise self.fault(key, text, f"give a number from {low:g} to {high:g}")
        return value

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        value = self.number_of(key, default, low, high)
        if value != int(value):
            raise self.fault(key, self.values.get(key), f"give a whole number from {low} to {high}")
        return int(value)

    def numbers(self, key: str) -> list[float]:
        text = self.text(key)
        try:
            return [float(part) for part in (text or "").rstrip(",").split(",")]
        except ValueError:
            raise self.fault(key, text, "give numbers separated by commas") from None

    def integers(self, key: str, low: int, high: int) -> list[int]:
        values = self.numbers(key)
        for value in values:
            if value != value // 1 or not low <= value <= high:
                raise self.fault(key, self.values[key], f"give whole numbers from {low} to {high}")
        return [int(value) for value in values]

    def activation(self, default: str) -> str:
        name = self.text("activation") or default
        if name not in ACTIVATIONS:
            raise self.fault("activation", name, f"use one of {', '.join(ACTIVATIONS)}")
        return name

    def sources(self, key: str) -> tuple[int, ...]:
        """Absolute section numbers; a negative one counts back from this section."""
        offsets = self.integers(key, -self.number, self.number - 1)
        return tuple(offset if offset >= 0 else self.number + offset for offset in offsets)

    def check_all_read(self) -> None:
        for key, value in self.values.items():
            if key in self.read or key in _TRAINING_KEYS:
                continue
            neutral = _NEUTRAL_VALUES.get(key)
            if neutral is None:
                raise self.fault(key, value, f"this key is unknown here; [{self.kind}] reads {_join(self.read)}")
            if value != neutral:
                raise self.fault(key, value, f"only {neutral} is")


def _join(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no keys"


def _split(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    for line, raw in enumerate(text.splitlines(), start=1):
        content = "".join(raw.split("#")[0].split(";")[0].split())
        if not content:
            continue
        if content.startswith("[") and content.endswith("]"):
            blocks.append(_Block(content[1:-1], len(blocks) - 1, line))
            if len(blocks) > MAX_SECTIONS:
                raise ModelError(f"the network has more than {MAX_SECTIONS} sections")
            continue
        key, equals, value = content.partition("=")
        if not blocks or not equals or not key:
            raise ModelError(f"line {line}: {raw.strip()[:80]!r} is neither '[section]' nor 'key = value'")
        if key in blocks[-1].values:
            raise ModelError(f"{blocks[-1].title}: '{key}' = {value!r} in line {line} is given twice; keep one")
        blocks[-1].values[key] = value
    if not blocks:
        raise ModelError("the network definition is empty; give the text of a Darknet .cfg file")
    return blocks


class _Builder:
    """Turns blocks into sections while it keeps account of what flows out of each."""

    def __init__(self, source: Shape) -> None:
        self.source = source
        self.sections: list[Section] = []
        self.shapes: list[Shape] = []

    def add(self, block: _Block) -> None:
        make = self._MAKERS.get(block.kind)
        if make is None:
            raise ModelError(f"{block.title}: unknown section; supported are {_join(set(self._MAKERS))}")
        section, shape = make(self, block)
        block.check_all_read()
        self.sections.append(section)
        self.shapes.append(shape)

    def _previous(self, block: _Block) -> Shape:
        if not self.sections:
            return self.source
        if isinstance(self.sections[-1], Yolo):
            raise ModelError(f"{block.title} follows a [yolo] head, whose output is boxes; put a [route] between them")
        return self.shapes[-1]

    def _shapes_of(self, block: _Block, key: str, sources: tuple[int, ...]) -> list[Shape]:
        for source in sources:
            if isinstance(self.sections[source], Yolo):
                raise block.fault(key, block.values[key], f"section {source} is a [yolo] head; name another section")
        return [self.shapes[source] for source in sources]

    def _shrunk(self, block: _Block, shape: Shape, stride: int, size: int, padding: int) -> int:
        """The stride after a window; an input of m x stride pixels must become m pixels for every m."""
        if not size - stride <= padding < size:
            raise block.fault(
                "size", str(size), f"with {padding} pixels of padding in all and stride {stride} it does not divide "
                "the picture evenly; set pad=1"
            )  # fmt: skip
        return shape.stride * stride

    def _convolutional(self, block: _Block) -> tuple[Section, Shape]:
        shape = self._previous(block)
        filters = block.integer("filters", None, 1, MAX_CHANNELS)
        size = block.integer("size", 1, 1, MAX_KERNEL)
        stride = block.integer("stride", 1, 1, MAX_KERNEL)
        padding = block.integer("padding", 0, 0, MAX_KERNEL)
        if block.integer("pad", 0, 0, 1):
            padding = size // 2
        groups = block.integer("groups", 1, 1, MAX_CHANNELS)
        if shape.channels % groups or filters % groups:
            remedy = f"it must divide its {shape.channels} input channels and its {filters} filters"
            raise block.fault("groups", str(groups), remedy)
        normalize = bool(block.integer("batch_normalize", 0, 0, 1))
        section = Convolutional(
            block.number, shape.channels, filters, size, stride, padding, groups, normalize, block.activation("linear")
        )
        return section, Shape(filters, self._shrunk(block, shape, stride, size, 2 * padding))

    def _maxpool(self, block: _Block) -> tuple[Section, Shape]:
        shape = self._previous(block)
        stride = block.integer("stride", 1, 1, MAX_KERNEL)
        size = block.integer("size", stride, 1, MAX_KERNEL)
        padding = block.integer("padding", size - 1, 0, MAX_KERNEL)
        return MaxPool(block.number, size, stride, padding), Shape(
            shape.channels, self._shrunk(block, shape, stride, size, padding)
        )

    def _shortcut(self, block: _Block) -> tuple[Section, Shape]:
        shape = self._previous(block)
        sources = block.sources("from")
        for source, other in zip(sources, self._shapes_of(block, "from", sources), strict=True):
            if other != shape:
                remedy = f"section {source} gives {_words(other)}, the previous one {_words(shape)}; they must be equal"
                raise block.fault("from", block.values["from"], remedy)
        return Shortcut(block.number, sources, block.activation("linear")), shape

    def _route(self, block: _Block) -> tuple[Section, Shape]:
        sources = block.sources("layers")
        shapes = self._shapes_of(block, "layers", sources)
        if len({shape.stride for shape in shapes}) > 1:
            remedy = "these sections differ in stride: " + ", ".join(_words(shape) for shape in shapes)
            raise block.fault("layers", block.values["layers"], remedy)
        groups = block.integer("groups", 1, 1, MAX_CHANNELS)
        if any(shape.channels % groups for shape in shapes):
            raise block.fault("groups", str(groups), f"it must divide {', '.join(str(s.channels) for s in shapes)}")
        group_id = block.integer("group_id", 0, 0, groups - 1)
        channels = sum(shape.channels // groups for shape in shapes)
        return Route(block.number, sources, groups, group_id), Shape(channels, shapes[0].stride)

    def _upsample(self, block: _Block) -> tuple[Section, Shape]:
        shape = self._previous(block)
        stride = block.integer("stride", 2, 1, MAX_KERNEL)
        after = Fraction(shape.stride, stride)
        if after.denominator != 1:
            raise block.fault("stride", str(stride), f"it must divide the stride {shape.stride} so far")
        return Upsample(block.number, stride), Shape(shape.channels, int(after))

    def _dropout(self, block: _Block) -> tuple[Section, Shape]:
        return Dropout(block.number, block.number_of("probability", 0.5, 0.0, 1.0)), self._previous(block)

    def _yolo(self, block: _Block) -> tuple[Section, Shape]:
        shape = self._previous(block)
        values = block.numbers("anchors")
        if len(values) % 2 or not all(0 < value < MAX_SIDE for value in values):
            raise block.fault("anchors", block.values["anchors"], "give pairs of positive numbers, in pixels")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        total = block.integer("num", len(pairs), 1, len(pairs))
        mask = block.integers("mask", 0, total - 1) if "mask" in block.values else list(range(total))
        classes = block.integer("classes", None, 1, MAX_CHANNELS)
        needed = len(mask) * (BOX_VALUES + classes)
        if shape.channels != needed:
            raise block.fault(
                "classes", str(classes), f"{len(mask)} anchors of {BOX_VALUES} + {classes} values need {needed} "
                f"channels but the previous section gives {shape.channels}: set its filters={needed}"
            )  # fmt: skip
        scale = block.number_of("scale_x_y", 1.0, 0.1, 10.0)
        new_coords = bool(block.integer("new_coords", 0, 0, 1))
        anchors = tuple(pairs[index] for index in mask)
        return Yolo(block.number, anchors, classes, scale, new_coords, shape.stride), shape

    _MAKERS: Mapping[str, Callable[[_Builder, _Block], tuple[Section, Shape]]] = {
        "convolutional": _convolutional,
        "conv": _convolutional,
        "maxpool": _maxpool,
        "max": _maxpool,
        "shortcut": _shortcut,
        "route": _route,
        "upsample": _upsample,
        "dropout": _dropout,
        "yolo": _yolo,
    }


def _words(shape: Shape) -> str:
    return f"{shape.channels} channels at stride {shape.stride}"
