"""Boxes, suppression, the way from predictions to detections, and F1."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from moonjelly.detection import (
    MatchCounts,
    corners,
    iou_matrix,
    match,
    match_frames,
    nms,
    postprocess,
    without_ignored,
)
from moonjelly.types import Detections


def boxes(*rows: tuple[float, float, float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    return Detections(
        boxes(*(row[:4] for row in rows)),
        np.array([row[4] for row in rows], np.float32),
        np.array([row[5] for row in rows], np.int32),
    )


def prediction(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array([rows], np.float32)


def test_iou_of_equal_disjoint_touching_nested_and_empty_boxes() -> None:
    whole = boxes((0, 0, 2, 2))
    others = boxes((0, 0, 2, 2), (3, 3, 4, 4), (2, 0, 3, 2), (0, 0, 1, 2), (1, 1, 1, 1), (2, 2, 0, 0))
    assert iou_matrix(whole, others).tolist() == [[1.0, 0.0, 0.0, 0.5, 0.0, 0.0]]
    assert iou_matrix(boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1))).tolist() == [[0.0]]
    assert iou_matrix(boxes(), whole).shape == (0, 1)


def test_corners_of_a_centred_box() -> None:
    assert corners(boxes((0.5, 0.5, 0.2, 0.4))).tolist() == [pytest.approx([0.4, 0.3, 0.6, 0.7])]


def test_the_best_box_of_a_class_suppresses_its_neighbours_but_not_other_classes() -> None:
    found = boxes((0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 9), (20, 20, 30, 30))
    scores = np.array([0.5, 0.9, 0.6, 0.1], np.float32)
    assert nms(found, scores, np.array([1, 1, 2, 1], np.int32), 0.4).tolist() == [1, 2, 3]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = boxes((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10))
    assert nms(chain, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int32), 0.4).tolist() == [0, 2]


def test_overlap_of_exactly_the_threshold_stays_and_equal_scores_keep_their_order() -> None:
    halves = boxes((0, 0, 2, 2), (0, 0, 1, 2))
    assert nms(halves, np.array([0.5, 0.5], np.float32), np.zeros(2, np.int32), 0.5).tolist() == [0, 1]
    assert nms(halves, np.array([0.5, 0.5], np.float32), np.zeros(2, np.int32), 0.49).tolist() == [0]


def test_predictions_become_detections_by_descending_score() -> None:
    frame = prediction(
        (0.5, 0.5, 0.2, 0.2, 0.5, 0.1, 0.9),
        (0.2, 0.2, 0.2, 0.2, 0.9, 0.9, 0.1),
        (0.8, 0.8, 0.2, 0.2, 0.9, 0.1, 0.2),
    )
    (found,) = postprocess(frame)
    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.81, 0.45])
    assert found.boxes[0].tolist() == pytest.approx([0.1, 0.1, 0.3, 0.3])
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int32)


def test_a_score_of_exactly_the_threshold_counts() -> None:
    frame = prediction((0.5, 0.5, 0.2, 0.2, 0.5, 0.5))
    assert len(postprocess(frame, score_threshold=0.25)[0]) == 1
    assert len(postprocess(frame, score_threshold=0.26)[0]) == 0


def test_every_class_of_a_candidate_counts_only_when_asked_for() -> None:
    frame = prediction((0.5, 0.5, 0.2, 0.2, 1.0, 0.6, 0.5))
    assert postprocess(frame)[0].classes.tolist() == [0]
    assert postprocess(frame, multi_label=True)[0].classes.tolist() == [0, 1]


def test_boxes_are_clipped_after_suppression() -> None:
    (found,) = postprocess(prediction((0.0, 1.0, 0.4, 0.4, 1.0, 1.0), (0.9, 0.9, 5.0, 0.1, 1.0, 0.9)))
    assert found.boxes.min() >= 0.0
    assert found.boxes.max() <= 1.0
    assert found.boxes[0].tolist() == pytest.approx([0.0, 0.8, 0.2, 1.0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", range(6))
def test_values_that_are_not_finite_are_no_detections(bad: float, column: int) -> None:
    row = [0.5, 0.5, 0.2, 0.2, 1.0, 1.0]
    row[column] = bad
    (found,) = postprocess(prediction(tuple(row), (0.2, 0.2, 0.1, 0.1, 0.5, 1.0)))
    assert found.scores.tolist() == [0.5]


def test_batches_are_split_and_empty_frames_have_no_boxes() -> None:
    batch = np.zeros((3, 4, 7), np.float32)
    batch[1, 2] = (0.5, 0.5, 0.2, 0.2, 1.0, 1.0, 0.0)
    assert [len(found) for found in postprocess(batch)] == [0, 1, 0]
    assert postprocess(np.zeros((2, 0, 7), np.float32))[1].boxes.shape == (0, 4)


def test_only_the_best_detections_are_kept() -> None:
    rows = [(0.1 * column, 0.5, 0.01, 0.01, 0.3 + 0.05 * column, 1.0) for column in range(10)]
    (found,) = postprocess(prediction(*rows), max_detections=3)
    assert found.scores.tolist() == pytest.approx([0.75, 0.7, 0.65])


def test_matching_counts_found_invented_and_overlooked_boxes() -> None:
    golden = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 1), (40, 40, 50, 50, 0.7, 2))
    detected = detections((0, 0, 10, 9, 0.9, 1), (20, 20, 30, 30, 0.8, 2), (60, 60, 70, 70, 0.5, 1))
    assert match(detected, golden) == MatchCounts(1, 2, 2)


def test_a_golden_box_is_found_once() -> None:
    golden = detections((0, 0, 10, 10, 0.9, 1))
    twice = detections((0, 0, 10, 10, 0.9, 1), (0, 0, 10, 10, 0.8, 1))
    assert match(twice, golden) == MatchCounts(1, 1, 0)


def test_the_better_score_chooses_first_and_takes_what_it_overlaps_most() -> None:
    golden = detections((0, 0, 10, 10, 1, 0), (2, 0, 12, 10, 1, 0))
    detected = detections((0, 0, 9, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))
    assert match(detected, golden) == MatchCounts(2, 0, 0)


def test_a_missed_frame_overlooks_everything_and_an_empty_one_invents_everything() -> None:
    some = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 1))
    assert match(Detections.empty(), some) == MatchCounts(0, 0, 2)
    assert match(some, Detections.empty()) == MatchCounts(0, 2, 0)
    assert match(Detections.empty(), Detections.empty()) == MatchCounts()


def test_frames_add_up_before_the_ratio_is_taken() -> None:
    many = detections((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 1), (40, 40, 50, 50, 0.7, 2))
    one = detections((0, 0, 10, 10, 0.9, 1))
    total = match_frames([(many, many), (Detections.empty(), one)])
    assert total == MatchCounts(3, 0, 1)
    assert total.precision == 1.0
    assert total.recall == 0.75
    assert total.f1 == pytest.approx(6 / 7)


def test_nothing_counted_is_no_success() -> None:
    assert (MatchCounts().f1, MatchCounts().precision, MatchCounts().recall) == (0.0, 0.0, 0.0)


def test_what_nobody_asked_for_is_neither_right_nor_wrong() -> None:
    asked = np.array([[0.1, 0.1, 0.3, 0.3]], np.float32)
    ignored = np.array([[0.6, 0.6, 0.7, 0.7], [0.1, 0.1, 0.3, 0.29]], np.float32)
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.7, 0.7], [0.4, 0.8, 0.5, 0.9]], np.float32)
    seen = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 0, 0], np.int32))
    kept = without_ignored(seen, asked, ignored)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(without_ignored(seen, asked, np.zeros((0, 4), np.float32))) == 3
