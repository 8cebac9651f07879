"""COCO files and average precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moonjelly.detection.average_precision import AveragePrecision, average_precision, resampled_precision
from moonjelly.detection.coco import (
    CocoImage,
    CocoSet,
    from_dataset,
    from_results,
    read_coco,
    to_dataset,
    to_results,
    write_coco,
)
from moonjelly.errors import CocoError
from moonjelly.types import Detections

IMAGES = (CocoImage(3, "frame-3", 640, 480), CocoImage(9, "frame-9", 100, 50))
TRUTH = Detections(
    np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32),
    np.array([0.9, 0.8], np.float32),
    np.array([1, 0], np.int32),
)
SET = CocoSet.of(("car", "person"), IMAGES, {3: TRUTH})


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "detections.json"
    write_coco(path, SET)
    read = read_coco(path)
    assert (read.classes, read.category_ids, read.images) == (("car", "person"), (1, 2), IMAGES)
    np.testing.assert_allclose(read.detections[3].boxes, TRUTH.boxes, atol=1e-6)
    np.testing.assert_allclose(read.detections[3].scores, TRUTH.scores, atol=1e-6)
    assert read.detections[3].classes.tolist() == [1, 0]
    assert len(read.detections[9]) == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["detections.json"]


def test_boxes_are_pixels_in_the_file() -> None:
    (first, _) = to_dataset(SET)["annotations"]
    assert first["bbox"] == pytest.approx([64, 48, 256, 192])
    assert first["area"] == pytest.approx(256 * 192)
    assert (first["image_id"], first["category_id"], first["iscrowd"]) == (3, 2, 0)


def test_a_results_list_gives_back_the_frames_it_was_made_of() -> None:
    results = to_results(IMAGES[0], TRUTH, (7, 5))
    assert [(result["image_id"], result["category_id"]) for result in results] == [(3, 5), (3, 7)]
    read = from_results(reversed(results), IMAGES, (7, 5))
    np.testing.assert_allclose(read[3].boxes, TRUTH.boxes, atol=1e-6)
    assert read[3].classes.tolist() == [1, 0]
    assert len(read[9]) == 0
    with pytest.raises(CocoError, match=r"KeyError\(5\)"):
        from_results(results, IMAGES, (7, 6))


def test_truth_without_scores_is_certain_and_crowds_are_left_out() -> None:
    dataset = to_dataset(SET)
    for annotation in dataset["annotations"]:
        del annotation["score"]
    dataset["annotations"][1]["iscrowd"] = 1
    read = from_dataset(dataset)
    assert read.detections[3].scores.tolist() == [1.0]
    assert read.detections[3].classes.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as COCO JSON"),
        ("[]", "holds a list, not a COCO dataset"),
        ("{}", "not a COCO dataset with images, categories and annotations: KeyError"),
        (json.dumps({**to_dataset(SET), "images": []}), r"missing, malformed or unknown: KeyError\(3\)"),
        (json.dumps({**to_dataset(SET), "categories": []}), r"missing, malformed or unknown: KeyError\(2\)"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(CocoError, match=message):
        read_coco(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"absent\.json cannot be read"):
        read_coco(tmp_path / "absent.json")


def test_perfect_detections_have_average_precision_1(capsys: pytest.CaptureFixture[str]) -> None:
    found = average_precision(SET, {3: TRUTH}, ("car", "person"))
    assert (found.ap50, found.ap) == (pytest.approx(1.0), pytest.approx(1.0))
    assert capsys.readouterr().out == ""


def test_classes_are_matched_by_name_and_half_the_objects_give_half_the_precision() -> None:
    swapped = Detections(TRUTH.boxes[:1], TRUTH.scores[:1], np.array([0], np.int32))
    assert average_precision(SET, {3: swapped}, ("person", "car")).ap50 == pytest.approx(0.5)


def test_darknets_names_mean_cocos_categories() -> None:
    truth = CocoSet.of(("motorcycle", "tv"), IMAGES, {3: TRUTH})
    assert average_precision(truth, {3: TRUTH}, ("motorbike", "tvmonitor")).ap50 == pytest.approx(1.0)


def test_no_detections_have_average_precision_0() -> None:
    assert average_precision(SET, {}, ("car", "person")).ap50 == 0.0


def test_an_unknown_class_and_an_empty_truth_are_errors() -> None:
    with pytest.raises(CocoError, match="class 'tram' is none of the truth's: car, person"):
        average_precision(SET, {3: TRUTH}, ("car", "tram"))
    with pytest.raises(CocoError, match="the truth has no boxes"):
        average_precision(CocoSet.of(("car", "person"), IMAGES, {}), {3: TRUTH}, ("car", "person"))


def test_a_resample_counts_a_picture_as_often_as_it_was_drawn() -> None:
    both = CocoSet.of(("car", "person"), IMAGES, {3: TRUTH, 9: TRUTH})
    draws = [(0, 1), (0, 0), (1, 1), (1, 0)]
    found = resampled_precision(both, {3: TRUTH}, ("car", "person"), draws)
    assert [one.ap50 for one in found] == pytest.approx([51 / 101, 1.0, 0.0, 51 / 101])  # recall 0, 0.01, ... 0.5
    assert found[0] == average_precision(both, {3: TRUTH}, ("car", "person"))
    assert resampled_precision(both, {}, ("car", "person"), draws) == [AveragePrecision(0.0, 0.0)] * len(draws)
