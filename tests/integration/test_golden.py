from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from client import golden
from client.records import Records
from client.sources import read_frame
from moonjelly.detection.coco import CocoImage, to_results
from moonjelly.errors import SourceError, ZooError
from moonjelly.repository import FileCache
from moonjelly.scenes import CLASSES
from moonjelly.sdk import FrameResult
from moonjelly.telemetry import FrameRow, read_rows
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant

SCENE = "synthetic:11"
SCENE_SIZE = (640, 360)


@pytest.fixture(scope="module")
def scene_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of the scene's classes; its weights are not looked at."""
    directory = tmp_path_factory.mktemp("zoo")
    (directory / "zoo.toml").write_text(
        f'format = 1\nname = "scene"\nclasses = {json.dumps(CLASSES)}\n'
        '[models.net]\narchitecture = "darknet"\ndefinition = "net.cfg"\nweights = "net.weights"\n'
        '[[variants]]\nname = "net-96"\nmodel = "net"\ninput_size = 96\nprecision = "fp32"\n'
    )
    return directory


def ended(frame_id: int, outcome: Outcome, detections: Detections) -> FrameResult:
    return FrameResult(
        frame_id, outcome, "", detections, ClientInstant(frame_id), received_ns=ClientInstant(frame_id + 5)
    )


@pytest.fixture(scope="module")
def scene_truth(scene_zoo: Path) -> dict[int, golden.Golden]:
    """What a hundred frames of the scene show."""
    return golden.detections(SCENE, scene_zoo, range(0, 3000, 30))


def busy_frames(count: int, truth: dict[int, golden.Golden]) -> list[int]:
    """Frames of the scene that show something."""
    frames = [index for index, found in truth.items() if len(found.asked) >= 2]
    assert len(frames) >= count
    return frames[:count]


def test_a_perfect_client_scores_one_and_a_missed_frame_counts_as_none(
    tmp_path: Path, scene_zoo: Path, scene_truth: dict[int, golden.Golden]
) -> None:
    frames = busy_frames(4, scene_truth)
    truth = {index: scene_truth[index].asked for index in frames}
    records = Records(tmp_path, 0, 100.0, len(CLASSES))
    outcomes = [Outcome.ON_TIME, Outcome.LATE, Outcome.ON_TIME, Outcome.SKIPPED]
    for frame_id, (index, outcome) in enumerate(zip(frames, outcomes, strict=True), start=1):
        # a late answer's boxes must not count, however good they are
        records.frame(ended(frame_id, outcome, truth[index]), index, SCENE_SIZE)
    records.close()
    score = golden.score(tmp_path, SCENE, scene_zoo)
    assert score.answered.f1 == 1.0
    boxes = [len(truth[index]) for index in frames]
    assert score.every.true_positives == boxes[0] + boxes[2]
    assert score.every.false_negatives == boxes[1] + boxes[3]
    assert score.every.false_positives == 0
    ends = [row.capture_ts for row in read_rows(tmp_path / "frame_stats.csv", FrameRow)]
    late = golden.score(tmp_path, SCENE, scene_zoo, warmup_s=(ends[2] - ends[0]) / 1e9)
    assert (late.every.true_positives, late.every.false_negatives) == (boxes[2], boxes[3]), "after the warm-up"


def test_the_same_source_frame_seen_twice_is_scored_by_its_own_answer(
    tmp_path: Path, scene_zoo: Path, scene_truth: dict[int, golden.Golden]
) -> None:
    (index,) = busy_frames(1, scene_truth)
    truth = scene_truth[index].asked
    records = Records(tmp_path, 0, 100.0, len(CLASSES))
    records.frame(ended(1, Outcome.ON_TIME, truth), index, SCENE_SIZE)
    records.frame(ended(2, Outcome.ON_TIME, Detections.empty()), index, SCENE_SIZE)
    records.close()
    score = golden.score(tmp_path, SCENE, scene_zoo)
    assert (score.every.true_positives, score.every.false_negatives) == (len(truth), len(truth))


def test_boxes_in_the_files_are_pixels_of_the_source(tmp_path: Path, scene_truth: dict[int, golden.Golden]) -> None:
    (index,) = busy_frames(1, scene_truth)
    truth = scene_truth[index].asked
    records = Records(tmp_path, 0, 100.0, len(CLASSES))
    records.frame(ended(1, Outcome.ON_TIME, truth), index, SCENE_SIZE)
    records.close()
    written = json.loads((tmp_path / "detections.json").read_text())
    expected = to_results(CocoImage(index, "", *SCENE_SIZE), truth, range(len(CLASSES)))
    assert written == [{"frame_id": 1, **one} for one in expected]
    height, width = read_frame(SCENE, index).shape[:2]
    assert (width, height) == SCENE_SIZE


def test_a_far_object_that_is_seen_all_the_same_is_no_fault(
    tmp_path: Path, scene_zoo: Path, scene_truth: dict[int, golden.Golden]
) -> None:
    index, one = next((index, one) for index, one in scene_truth.items() if len(one.ignored) >= 3 and len(one.asked))
    boxes = np.concatenate([one.asked.boxes, one.ignored])
    everything = Detections(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int32))
    records = Records(tmp_path, 0, 100.0, len(CLASSES))
    records.frame(ended(1, Outcome.ON_TIME, everything), index, SCENE_SIZE)
    records.close()
    counts = golden.score(tmp_path, SCENE, scene_zoo).every
    assert counts.true_positives + counts.false_positives <= len(one.asked) + 1


def test_a_live_source_has_no_golden_detections(tmp_path: Path, scene_zoo: Path) -> None:
    with pytest.raises(SourceError, match="is live"):
        golden.detections("rtsp://camera/1", scene_zoo, [0])
    records = Records(tmp_path, 0, 100.0, len(CLASSES))
    records.frame(ended(1, Outcome.SKIPPED, Detections.empty()), None, None)
    records.close()
    with pytest.raises(SourceError, match="1 of 1 frames have no number in their source"):
        golden.score(tmp_path, SCENE, scene_zoo)


def test_a_zoo_without_weights_says_so(scene_zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"net\.(cfg|weights)"):
        golden.detections(str(_picture(tmp_path)), scene_zoo, [0])


def test_the_golden_model_is_the_most_accurate_variant_and_runs_once_per_frame(tmp_path: Path, data_dir: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    names = (data_dir / "models" / "yolo-fastest-1.1" / "coco.names").read_text().split("\n")
    models = data_dir / "models" / "yolo-fastest-1.1"
    (zoo / "zoo.toml").write_text(
        f'format = 1\nname = "small"\nclasses = {json.dumps([name for name in names if name])}\n'
        f'[models.small]\narchitecture = "darknet"\ndefinition = "{models}/yolo-fastest-1.1.cfg"\n'
        f'weights = "{models}/yolo-fastest-1.1.weights"\n'
        '[[variants]]\nname = "a"\nmodel = "small"\ninput_size = 96\nprecision = "fp32"\n'
        '[[variants]]\nname = "b"\nmodel = "small"\ninput_size = 320\nprecision = "fp32"\n'
    )
    video = str(data_dir / "videos" / "highway-camera.mp4")
    calls: list[str] = []

    class Cache(FileCache):
        def get(self, key, make):  # type: ignore[no-untyped-def]
            def counted() -> bytes:
                calls.append(key)
                return make()

            return super().get(key, counted)

    cache = Cache(tmp_path / "cache")
    progress: list[tuple[int, int]] = []
    first = golden.detections(video, zoo, [30, 0, 30], cache=cache, report=lambda *done: progress.append(done))
    assert sorted(first) == [0, 30]
    assert progress == [(1, 2), (2, 2)]
    frames = [key for key in calls if key.startswith("golden")]
    assert len(frames) == 2
    assert all(" 320 fp32 " in key for key in frames)
    cars = first[30].asked.classes == names.index("car")
    assert cars.sum() >= 3, "a street full of cars"
    again = golden.detections(video, zoo, [0, 30], cache=cache)
    assert len([key for key in calls if key.startswith("golden")]) == 2
    for index in (0, 30):
        np.testing.assert_array_equal(again[index].asked.boxes, first[index].asked.boxes)
        np.testing.assert_array_equal(again[index].asked.classes, first[index].asked.classes)


def _picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    return path
