"""What suppression, matching and the readers hold for every input."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moonjelly.detection import iou_matrix, match, nms, postprocess
from moonjelly.errors import ModelError
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.weights import decode_weights, encode_weights
from moonjelly.types import Detections

THRESHOLD = 0.4


def crowd(
    seed: int, count: int, class_count: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Boxes that overlap much; coarse scores, so that some are equal."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate((corner, corner + rng.integers(1, 9, (count, 2))), axis=1).astype(np.float32)
    scores = (rng.integers(1, 50, count) / 50).astype(np.float32)
    return boxes, scores, rng.integers(0, class_count, count).astype(np.int32)


@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([0, 1, 2, 17, 60, 511, 513, 1200]))
@settings(max_examples=60, deadline=None)
def test_suppression_keeps_exactly_what_no_better_kept_box_overlaps(seed: int, count: int) -> None:
    boxes, scores, classes = crowd(seed, count)
    kept = nms(boxes, scores, classes, THRESHOLD)
    assert (np.diff(scores[kept]) <= 0).all()
    rivals = (iou_matrix(boxes, boxes[kept]) > THRESHOLD) & (classes[:, None] == classes[kept][None, :])
    order = np.argsort(-scores, kind="stable")
    rank = np.empty(count, np.intp)
    rank[order] = np.arange(count)
    beaten = (rivals & (rank[kept][None, :] < rank[:, None])).any(axis=1)
    assert sorted(kept.tolist()) == np.flatnonzero(~beaten).tolist()


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), threshold=st.floats(0.05, 0.95))
def test_detections_are_sorted_inside_the_frame_and_above_the_threshold(
    seed: int, count: int, threshold: float
) -> None:
    predictions = np.random.default_rng(seed).normal(0.5, 0.5, (2, count, 9)).astype(np.float32)
    for found in postprocess(predictions, threshold, THRESHOLD):
        assert (found.scores >= np.float32(threshold)).all()
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()


@given(
    seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), counts=st.tuples(st.integers(0, 30), st.integers(0, 30))
)
def test_every_box_is_counted_once(seeds: tuple[int, int], counts: tuple[int, int]) -> None:
    detected, golden = (Detections(*crowd(seed, count)) for seed, count in zip(seeds, counts, strict=True))
    counted = match(detected, golden)
    assert counted.true_positives + counted.false_positives == len(detected)
    assert counted.true_positives + counted.false_negatives == len(golden)
    assert 0.0 <= counted.f1 <= 1.0
    assert match(golden, golden).f1 == (1.0 if len(golden) else 0.0)


LINES = st.sampled_from(
    [
        *("[net]", "[convolutional]", "[route]", "[shortcut]", "[maxpool]", "[upsample]", "[yolo]", "["),
        *("width=32", "height=32", "filters=6", "filters=18", "size=3", "pad=1", "stride=2", "groups=2", "="),
        *("batch_normalize=1", "activation=leaky", "layers=-1", "layers=-1,-2", "from=-2", "x="),
        *("anchors=1,2", "classes=1", "mask=0"),
    ]
)


@given(text=st.one_of(st.text(max_size=200), st.lists(LINES, max_size=30).map("\n".join)))
@settings(max_examples=300)
def test_any_text_is_a_network_or_a_clear_error(text: str) -> None:
    try:
        config = parse_cfg(text)
    except ModelError:
        return
    assert config.heads
    assert config.candidates(config.width, config.height) > 0


@given(data=st.binary(max_size=4 * 40 + 20))
def test_any_bytes_are_weights_or_a_clear_error(data: bytes) -> None:
    config = parse_cfg("[net]\nwidth=8\nheight=8\n[convolutional]\nfilters=6\n[yolo]\nanchors=1,2\nclasses=1\n")
    try:
        header, arrays = decode_weights(config, data)
    except ModelError:
        return
    again, same = decode_weights(config, encode_weights(config, arrays, header))
    assert again.seen == header.seen
    assert [[array.tolist() for array in named.values()] for named in same] == [
        [array.tolist() for array in named.values()] for named in arrays
    ]
