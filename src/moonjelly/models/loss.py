"""The loss of a YOLO detector: which candidates answer for which box, and how wrong they are.

An object is answered for by every anchor whose sides are within a factor of its own, in the cell of its centre and the
two cells nearest to it, as heads with ``scale_x_y`` 2 reach half a cell beyond their own. Boxes are judged by complete
IoU (Zheng et al. 2020, "Distance-IoU loss", section 3.3), objectness and classes by binary cross-entropy; all three
are summed and divided by the number of answering candidates. Candidates within an *ignored* box (too small or too
hidden to be asked for) are neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moonjelly.models.definition import MAX_LOG_SIDE, Yolo

SIDE_RATIO = 2.5
"""An anchor answers for boxes whose sides are within this factor of its own."""
BOX_WEIGHT = 3.0
OBJECTNESS_FLOOR = 0.5
"""Objectness to learn at an IoU of 0; at 1 it is 1: better boxes get higher scores."""


@dataclass(frozen=True, eq=False, slots=True)
class Targets:
    """The truth of a batch.

    Attributes:
        pictures: ``(n,)`` int64, which picture of the batch each box is in.
        classes: ``(n,)`` int64.
        boxes: ``(n, 4)`` float32, centre x, centre y, width, height as fractions of the picture.
        ignored: ``(n,)`` bool.
    """

    pictures: Tensor
    classes: Tensor
    boxes: Tensor
    ignored: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class LossTerms:
    """The parts of the loss, scalars.

    Attributes:
        box: complete-IoU loss.
        objectness: binary cross-entropy over all candidates.
        classes: binary cross-entropy over the answering candidates.
        answering: how many candidates answer for a box.
    """

    box: Tensor
    objectness: Tensor
    classes: Tensor
    answering: int

    @property
    def total(self) -> Tensor:
        """What training minimises."""
        return BOX_WEIGHT * self.box + self.objectness + self.classes


@dataclass(frozen=True, eq=False, slots=True)
class _Answers:
    """Candidates of one head and the boxes that they answer for."""

    picture: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target: Tensor


def detection_loss(heads: Sequence[Yolo], raw: Sequence[Tensor], targets: Targets) -> LossTerms:
    """Judge the raw outputs of one batch.

    Args:
        heads: ``config.heads`` of the network; classic coordinates (not ``new_coords``).
        raw: as ``DarknetNetwork.heads`` returns them, for square inputs.
        targets: the truth.
    """
    asked = (~targets.ignored).nonzero()[:, 0]
    scale = max(_input_side(head, values) for head, values in zip(heads, raw, strict=True))
    fits = _fitting_anchors(heads, targets.boxes[asked, 2:] * scale)
    box = objectness = classes = raw[0].new_zeros(())
    answering = 0
    for head, fit, values in zip(heads, fits, raw, strict=True):
        answers = _answers(fit, values, targets, asked)
        wanted = torch.zeros_like(values[..., 4])
        weight = _attention(values, targets)
        if len(answers.target):
            place = (answers.picture, answers.anchor, answers.row, answers.column)
            chosen = values[place]
            truth = targets.boxes[answers.target]
            overlap = complete_iou(_decode(head, chosen, answers, values.shape[2:4], scale), truth)
            box = box + (1.0 - overlap).sum()
            named = functional.one_hot(targets.classes[answers.target], head.classes).to(values.dtype)
            classes = classes + functional.binary_cross_entropy_with_logits(chosen[:, 5:], named, reduction="sum")
            quality = OBJECTNESS_FLOOR + (1.0 - OBJECTNESS_FLOOR) * overlap.detach().clamp(0.0, 1.0)
            wanted[place] = torch.maximum(wanted[place], quality)
            weight[place] = 1.0
            answering += len(answers.target)
        objectness = objectness + functional.binary_cross_entropy_with_logits(
            values[..., 4], wanted, weight=weight, reduction="sum"
        )
    count = max(1, answering)
    return LossTerms(box / count, objectness / count, classes / count, answering)


def complete_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Complete IoU of pairs: IoU less the distance of the centres and the difference of the aspects, in (-1.5, 1].

    Args:
        boxes: ``(n, 4)`` centre x, centre y, width, height; positive sides.
        others: ``(n, 4)`` likewise.

    Returns:
        ``(n,)``.
    """
    tiny = 1e-9
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    other_low, other_high = others[:, :2] - others[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0.0).prod(dim=1)
    union = boxes[:, 2:].prod(dim=1) + others[:, 2:].prod(dim=1) - shared
    overlap = shared / (union + tiny)
    around = torch.maximum(high, other_high) - torch.minimum(low, other_low)
    distance = (boxes[:, :2] - others[:, :2]).square().sum(dim=1) / (around.square().sum(dim=1) + tiny)
    turn = torch.atan(others[:, 2] / (others[:, 3] + tiny)) - torch.atan(boxes[:, 2] / (boxes[:, 3] + tiny))
    aspect = 4.0 / math.pi**2 * turn.square()
    with torch.no_grad():
        trade_off = aspect / (1.0 - overlap + aspect + tiny)
    return overlap - distance - trade_off * aspect


def _input_side(head: Yolo, values: Tensor) -> int:
    return head.stride * values.shape[2]


def _answers(fits: Tensor, values: Tensor, targets: Targets, asked: Tensor) -> _Answers:
    boxes = targets.boxes[asked]
    chosen, anchor = fits.nonzero(as_tuple=True)
    cells = boxes[chosen, :2] * torch.tensor([values.shape[3], values.shape[2]], dtype=boxes.dtype)
    own = cells.floor()
    # Towards which neighbour each centre leans, sideways and up or down.
    lean = torch.where(cells - own < 0.5, -1.0, 1.0)
    still = torch.zeros_like(lean[:, 0])
    sideways, upward = torch.stack((lean[:, 0], still), dim=1), torch.stack((still, lean[:, 1]), dim=1)
    places = torch.cat((own, own + sideways, own + upward)).long()
    inside = (places >= 0).all(dim=1) & (places[:, 0] < values.shape[3]) & (places[:, 1] < values.shape[2])
    target = asked[chosen].repeat(3)[inside]
    return _Answers(
        picture=targets.pictures[target],
        anchor=anchor.repeat(3)[inside],
        row=places[inside, 1],
        column=places[inside, 0],
        target=target,
    )


def _fitting_anchors(heads: Sequence[Yolo], sides: Tensor) -> tuple[Tensor, ...]:
    """``(n, a)`` per head: which of its anchors answer for boxes of ``sides`` pixels; each box has at least one."""
    anchors = torch.tensor([anchor for head in heads for anchor in head.anchors], dtype=sides.dtype)
    ratio = sides[:, None, :] / anchors[None]
    worst = torch.maximum(ratio, 1.0 / ratio.clamp(min=1e-9)).amax(dim=2)
    fits = worst < SIDE_RATIO
    if len(sides):
        fits[torch.arange(len(sides)), worst.argmin(dim=1)] = True
    return torch.split(fits, [len(head.anchors) for head in heads], dim=1)


def _decode(head: Yolo, chosen: Tensor, answers: _Answers, grid: torch.Size, scale: int) -> Tensor:
    cells = torch.stack((answers.column, answers.row), dim=1).to(chosen.dtype)
    centres = chosen[:, :2].sigmoid() * head.scale_x_y - 0.5 * (head.scale_x_y - 1.0) + cells
    anchors = torch.tensor(head.anchors, dtype=chosen.dtype)[answers.anchor]
    sides = chosen[:, 2:4].clamp(max=MAX_LOG_SIDE).exp() * anchors / scale
    return torch.cat((centres / torch.tensor([grid[1], grid[0]], dtype=chosen.dtype), sides), dim=1)


def _attention(values: Tensor, targets: Targets) -> Tensor:
    """1 where objectness is judged, 0 within ignored boxes."""
    weight = np.ones(values.shape[:4], np.float32)
    rows, columns = values.shape[2:4]
    pictures, boxes = targets.pictures[targets.ignored], targets.boxes[targets.ignored]
    edges = torch.tensor([columns, rows, columns, rows], dtype=boxes.dtype)
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1) * edges
    for picture, (left, top, right, bottom) in zip(pictures.tolist(), corners.tolist(), strict=True):
        weight[picture, :, int(max(0.0, top)) : math.ceil(bottom), int(max(0.0, left)) : math.ceil(right)] = 0.0
    return torch.from_numpy(weight)
