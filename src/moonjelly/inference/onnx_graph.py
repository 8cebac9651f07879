"""A Darknet network as an ONNX graph, built from its definition and weights without torch.

The graph takes pictures as they are decoded and gives what NMS needs: preprocessing (transpose, cast, scale) and the
choice of the best candidates are inside. Batch and input size are free; a session fixes the size.

Input ``images``: ``(batch, height, width, 3)`` uint8 RGB. Output ``candidates``: ``(batch, k, 5 + C)`` float32, best
first, rows as :class:`moonjelly.models.darknet.DarknetNetwork` gives them. Why not torch's exporter:
``docs/adr/0005-onnx-graph-from-definition.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from moonjelly.models.definition import (
    BOX_VALUES,
    DARKNET_EPSILON,
    MAX_LOG_SIDE,
    Convolutional,
    Dropout,
    MaxPool,
    NetworkConfig,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from moonjelly.models.weights import ConvolutionArrays

OPSET = 17
IR_VERSION = 9
GRAPH_VERSION = 1
"""Part of the name of cached graphs: raise it when this module builds them differently."""

INPUT, OUTPUT = "images", "candidates"
HEIGHT, WIDTH = "height", "width"

_SIMPLE_ACTIVATIONS = {"relu": "Relu", "logistic": "Sigmoid"}


def build_graph(config: NetworkConfig, arrays: Sequence[ConvolutionArrays], candidates: int) -> bytes:
    """Serialised ONNX model.

    Args:
        config: the network.
        arrays: its weights, per :attr:`NetworkConfig.convolutions`.
        candidates: best rows to give per picture; all when there are fewer.
    """
    return _Graph(config, arrays).build(candidates)


class _Graph:
    def __init__(self, config: NetworkConfig, arrays: Sequence[ConvolutionArrays]) -> None:
        self._config = config
        self._arrays = iter(arrays)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names = 0

    def build(self, candidates: int) -> bytes:
        flow = self._preprocessed()
        outputs: list[str] = []
        heads: list[str] = []
        for section in self._config.sections:
            if isinstance(section, Yolo):
                heads.append(self._yolo(section, flow))
            elif isinstance(section, Convolutional):
                flow = self._convolution(section, flow)
            elif isinstance(section, Shortcut):
                flow = self._shortcut(section, flow, outputs)
            elif isinstance(section, Route):
                flow = self._route(section, outputs)
            elif isinstance(section, Upsample):
                flow = self._upsample(section, flow)
            elif isinstance(section, MaxPool):
                flow = self._maxpool(section, flow)
            else:
                assert isinstance(section, Dropout)  # nothing happens outside training
            outputs.append(flow)
        rows = heads[0] if len(heads) == 1 else self._op("Concat", heads, axis=1)
        self._best(rows, candidates)
        return self._serialise()

    def _serialise(self) -> bytes:
        shape = ("batch", HEIGHT, WIDTH, self._config.channels)
        row = BOX_VALUES + self._config.class_count
        graph = helper.make_graph(
            self._nodes,
            "darknet",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("batch", None, row))],
            self._initializers,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="moonjelly", opset_imports=opsets, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    # Atoms

    def _name(self) -> str:
        self._names += 1
        return f"t{self._names}"

    def _op(self, kind: str, inputs: Sequence[str], outputs: int | Sequence[str] = 1, **attributes: Any) -> str:
        """Add a node; the name of its first output."""
        names = [self._name() for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def _constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = self._name()
        self._initializers.append(numpy_helper.from_array(np.array(values, dtype, order="C"), name))
        return name

    def _integers(self, *values: int) -> str:
        return self._constant(values, np.int64)

    # Sections

    def _preprocessed(self) -> str:
        planes = self._op("Transpose", [INPUT], perm=(0, 3, 1, 2))
        return self._op("Mul", [self._op("Cast", [planes], to=TensorProto.FLOAT), self._constant(1.0 / 255.0)])

    def _convolution(self, section: Convolutional, flow: str) -> str:
        weight, bias = _folded(next(self._arrays))
        padding = [section.padding] * 4
        strides = [section.stride] * 2
        inputs = [flow, self._constant(weight), self._constant(bias)]
        flow = self._op("Conv", inputs, group=section.groups, pads=padding, strides=strides)
        return self._activation(section.activation, flow)

    def _activation(self, name: str, flow: str) -> str:
        if name == "linear":
            return flow
        if name == "leaky":
            return self._op("LeakyRelu", [flow], alpha=0.1)
        if name == "mish":
            return self._op("Mul", [flow, self._op("Tanh", [self._op("Softplus", [flow])])])
        if name == "swish":
            return self._op("Mul", [flow, self._op("Sigmoid", [flow])])
        return self._op(_SIMPLE_ACTIVATIONS[name], [flow])

    def _shortcut(self, section: Shortcut, flow: str, outputs: Sequence[str]) -> str:
        for source in section.sources:
            flow = self._op("Add", [flow, outputs[source]])
        return self._activation(section.activation, flow)

    def _route(self, section: Route, outputs: Sequence[str]) -> str:
        flows = []
        for source in section.sources:
            share = self._config.shapes[source].channels // section.groups
            first = share * section.group_id
            bounds = [self._integers(first), self._integers(first + share), self._integers(1)]
            flows.append(outputs[source] if section.groups == 1 else self._op("Slice", [outputs[source], *bounds]))
        return flows[0] if len(flows) == 1 else self._op("Concat", flows, axis=1)

    def _upsample(self, section: Upsample, flow: str) -> str:
        scales = self._constant([1.0, 1.0, section.stride, section.stride])
        inputs, mode = [flow, "", scales], "asymmetric"
        return self._op("Resize", inputs, mode="nearest", nearest_mode="floor", coordinate_transformation_mode=mode)

    def _maxpool(self, section: MaxPool, flow: str) -> str:
        before = section.padding // 2
        after = section.padding - before
        kernel, strides, pads = [section.size] * 2, [section.stride] * 2, [before, before, after, after]
        return self._op("MaxPool", [flow], kernel_shape=kernel, strides=strides, pads=pads)

    # Heads

    def _yolo(self, section: Yolo, flow: str) -> str:
        """``(batch, a rows columns, 5 + C)`` decoded rows of one head."""
        row = BOX_VALUES + section.classes
        count = len(section.anchors)
        rows, columns = self._side(flow, 2), self._side(flow, 3)
        to_split = self._op("Concat", [self._integers(0, count, row), rows, columns], axis=0)
        split = self._op("Transpose", [self._op("Reshape", [flow, to_split])], perm=(0, 1, 3, 4, 2))
        parts = [self._name() for _ in range(3)]
        self._op("Split", [split, self._integers(2, 2, row - 4)], parts, axis=4)
        centres, sides, confidences = parts
        if section.new_coords:
            doubled = self._op("Mul", [sides, self._constant(2.0)])
            sides = self._op("Mul", [doubled, doubled])
        else:
            centres, confidences = self._op("Sigmoid", [centres]), self._op("Sigmoid", [confidences])
            sides = self._op("Exp", [self._op("Min", [sides, self._constant(MAX_LOG_SIDE)])])
        centres = self._op("Mul", [centres, self._constant(section.scale_x_y)])
        centres = self._op("Sub", [centres, self._constant(0.5 * (section.scale_x_y - 1.0))])
        cells = self._op("Cast", [self._op("Concat", [columns, rows], axis=0)], to=TensorProto.FLOAT)
        centres = self._op("Div", [self._op("Add", [centres, self._grid(rows, columns)]), cells])
        # Anchors are in input pixels; a cell is `stride` of them.
        anchors = np.asarray(section.anchors, np.float32).reshape(1, count, 1, 1, 2) / section.stride
        sides = self._op("Mul", [sides, self._op("Div", [self._constant(anchors), cells])])
        decoded = self._op("Concat", [centres, sides, confidences], axis=4)
        return self._op("Reshape", [decoded, self._integers(0, -1, row)])

    def _side(self, flow: str, axis: int) -> str:
        return self._op("Shape", [flow], start=axis, end=axis + 1)

    def _grid(self, rows: str, columns: str) -> str:
        """``(rows, columns, 2)`` column and row of every cell."""
        plane = self._op("Concat", [rows, columns], axis=0)
        axes = [self._range(columns, (1, -1)), self._range(rows, (-1, 1))]
        planes = [self._op("Unsqueeze", [self._op("Expand", [axis, plane]), self._integers(2)]) for axis in axes]
        return self._op("Concat", planes, axis=2)

    def _range(self, length: str, shape: tuple[int, int]) -> str:
        end = self._op("Squeeze", [length])
        numbers = self._op("Range", [self._constant(0, np.int64), end, self._constant(1, np.int64)])
        return self._op("Reshape", [self._op("Cast", [numbers], to=TensorProto.FLOAT), self._integers(*shape)])

    def _best(self, rows: str, candidates: int) -> None:
        """The rows with the highest objectness times best class."""
        row = BOX_VALUES + self._config.class_count
        objectness, classes = self._columns(rows, 4, 5), self._columns(rows, 5, row)
        best = self._op("ReduceMax", [classes], axes=[2], keepdims=1)
        scores = self._op("Squeeze", [self._op("Mul", [objectness, best]), self._integers(2)])
        count = self._op("Min", [self._side(rows, 1), self._integers(candidates)])
        chosen = self._name()
        self._op("TopK", [scores, count], [self._name(), chosen], axis=1)
        index = self._op("Unsqueeze", [chosen, self._integers(2)])
        self._op("GatherND", [rows, index], [OUTPUT], batch_dims=1)

    def _columns(self, rows: str, first: int, end: int) -> str:
        return self._op("Slice", [rows, self._integers(first), self._integers(end), self._integers(2)])


def _folded(arrays: ConvolutionArrays) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias with batch normalisation folded in."""
    weight, bias = arrays["weight"], arrays["bias"]
    if "scale" not in arrays:
        return weight, bias
    factor = arrays["scale"] / np.sqrt(arrays["variance"] + np.float32(DARKNET_EPSILON))
    return weight * factor[:, None, None, None], bias - arrays["mean"] * factor
