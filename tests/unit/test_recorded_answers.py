"""Recorded answers: which frame they are of, whose classes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moonjelly.detection.coco import CocoImage, CocoSet, write_coco
from moonjelly.errors import CocoError, ExecutorError
from moonjelly.inference import FrameInput, make_executor
from moonjelly.inference.protocol import ModelSource
from moonjelly.inference.recorded import RecordedAnswers, read_answers, record
from moonjelly.profiles import Profile
from moonjelly.types import Detections, Variant

VARIANTS = (Variant("a", "net", 64), Variant("b", "net", 96))
PROFILE = Profile("bench", VARIANTS, (0.1, 0.2), ((2.0, 3.0), (40.0, 50.0)))
SOURCE = ModelSource("net", "none", "", b"", (), "")
CLASSES = ("car", "person")


def seen(score: float, class_index: int = 0) -> Detections:
    return Detections(
        np.array([[0.25, 0.25, 0.5, 0.75]], np.float32),
        np.full(1, score, np.float32),
        np.full(1, class_index, np.int32),
    )


def write(path: Path, *frames: Detections, classes: tuple[str, ...] = CLASSES) -> Path:
    images = [CocoImage(10 * number, f"frame-{number}", 640, 480) for number in range(len(frames))]
    write_coco(path, CocoSet.of(classes, images, {10 * number: found for number, found in enumerate(frames)}))
    return path


def test_they_are_given_per_variant_and_frame_and_wrap_around() -> None:
    recorded = RecordedAnswers({"a": [seen(0.1), seen(0.2)], "b": [seen(0.3), seen(0.4)]})
    executor = make_executor("simulated", profile=PROFILE, answers=recorded)
    for variant in VARIANTS:
        executor.load(variant, SOURCE, 2)
    later = [FrameInput("camera", number, None) for number in (1, 4)]
    assert [float(found.scores[0]) for found in executor.infer("a", later)] == pytest.approx([0.1, 0.2])
    assert [float(found.scores[0]) for found in executor.infer("b", later)] == pytest.approx([0.3, 0.4])


def test_holes_are_refused() -> None:
    with pytest.raises(ExecutorError, match="same frames for every variant"):
        RecordedAnswers({"a": [seen(0.1)], "b": []})
    with pytest.raises(ExecutorError, match="nothing was recorded of variant 'b'; there are a"):
        RecordedAnswers({"a": [seen(0.1)]}).detections("b", "camera", 1)


def test_a_folder_has_a_file_per_variant(tmp_path: Path) -> None:
    write(tmp_path / "a.json", seen(0.1), Detections.empty())
    write(tmp_path / "b.json", seen(0.3), seen(0.4))
    answers = read_answers(tmp_path, VARIANTS, CLASSES)
    assert [len(answers.detections("a", "any", number)) for number in (1, 2, 3)] == [1, 0, 1]
    assert answers.detections("b", "any", 2).scores.tolist() == pytest.approx([0.4])
    np.testing.assert_allclose(answers.detections("a", "any", 1).boxes, seen(0.1).boxes, atol=1e-6)


def test_one_file_is_every_variants(tmp_path: Path) -> None:
    answers = read_answers(write(tmp_path / "all.json", seen(0.1), seen(0.2)), VARIANTS, CLASSES)
    assert [answers.detections(name, "any", 2).scores.tolist() for name in "ab"] == [pytest.approx([0.2])] * 2


def test_classes_are_matched_by_name_and_those_without_boxes_do_not_count(tmp_path: Path) -> None:
    place = write(tmp_path / "all.json", seen(0.1, 2), classes=("tram", "person", "car"))
    assert read_answers(place, VARIANTS, CLASSES).detections("a", "any", 1).classes.tolist() == [0]
    with pytest.raises(CocoError, match=r"all\.json has boxes of class 'car', which the zoo lacks; it has tram"):
        read_answers(place, VARIANTS, ("tram",))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": 1}, r"b\.json cannot be read as COCO JSON"),
        ({"a": 1, "b": 2}, r"same frames for every variant, at least one: \{'a': 1, 'b': 2\}"),
        ({"a": 0, "b": 0}, r"at least one: \{'a': 0, 'b': 0\}"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, files: dict[str, int], message: str) -> None:
    for name, count in files.items():
        write(tmp_path / f"{name}.json", *[seen(0.5)] * count)
    with pytest.raises(CocoError, match=message):
        read_answers(tmp_path, VARIANTS, CLASSES)


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match="nowhere cannot be read as COCO JSON"):
        read_answers(tmp_path / "nowhere", VARIANTS, CLASSES)


def test_what_is_recorded_is_what_the_variant_said(tmp_path: Path) -> None:
    recorded = RecordedAnswers({"a": [seen(0.1), Detections.empty()], "b": [seen(0.3)] * 2})
    executor = make_executor("simulated", profile=PROFILE, answers=recorded)
    pictures = [np.zeros((48, 64, 3), np.uint8)] * 2
    content = record(executor, VARIANTS[0], SOURCE, CLASSES, pictures)
    assert executor.resident() == frozenset()
    assert [(image.width, image.height) for image in content.images] == [(64, 48)] * 2
    write_coco(tmp_path / "a.json", content)
    again = read_answers(tmp_path, VARIANTS[:1], CLASSES)
    assert [again.detections("a", "any", number).scores.tolist() for number in (1, 2)] == [[pytest.approx(0.1)], []]
