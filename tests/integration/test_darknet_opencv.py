"""Our reader of Darknet networks beside OpenCV's, on real pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moonjelly.detection import postprocess
from moonjelly.detection.average_precision import AP_SCORE_THRESHOLD, average_precision
from moonjelly.detection.coco import read_dataset
from moonjelly.models.darknet import DarknetNetwork, load_network, parse_cfg, random_network, save_weights
from moonjelly.models.definition import NetworkConfig
from moonjelly.types import Detections
from tests.support.darknet import EVERYTHING

DETECTORS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")
IOU_THRESHOLD = 0.4
Rows = NDArray[np.float32]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several thread pools on few cores stand in one another's way."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


class OpenCvReader:
    """OpenCV's Darknet reader; without a threshold of its own, which is 0.2 where the definition has none."""

    def __init__(self, definition: str, weights: bytes, threshold: float) -> None:
        lowered = definition.replace("[yolo]", f"[yolo]\nthresh={threshold}").encode()
        self.network = cv2.dnn.readNetFromDarknet(
            np.frombuffer(lowered, np.uint8), np.frombuffer(weights, np.uint8)
        )  # fmt: skip
        self.outputs = self.network.getUnconnectedOutLayersNames()

    def __call__(self, blob: Rows, config: NetworkConfig) -> Rows:
        """``(n, 5 + C)`` in our order of candidates; the class columns hold objectness times probability."""
        self.network.setInput(blob)
        side = blob.shape[2]
        rows = []
        for head, found in zip(config.heads, self.network.forward(self.outputs), strict=True):
            by_cell = found.reshape((side // head.stride) ** 2, len(head.anchors), 5 + head.classes)
            rows.append(by_cell.transpose(1, 0, 2).reshape(-1, 5 + head.classes))
        return np.concatenate(rows)


def scored(predictions: Rows) -> Rows:
    """Ours with OpenCV's meaning of the class columns."""
    return np.concatenate((predictions[:, :5], predictions[:, 5:] * predictions[:, 4:5]), axis=1)


def to_blob(picture: Any, size: int) -> Rows:
    return np.asarray(cv2.dnn.blobFromImage(picture, 1 / 255, (size, size), swapRB=True, crop=False))


@torch.no_grad()
def ours(network: DarknetNetwork, blob: Rows) -> Rows:
    return network(torch.from_numpy(blob)).numpy()


def read(data_dir: Path, name: str) -> tuple[str, bytes]:
    folder = data_dir / "models" / "yolo-fastest-1.1"
    return (folder / f"{name}.cfg").read_text(), (folder / f"{name}.weights").read_bytes()


def coco_pictures(data_dir: Path) -> dict[int, Any]:
    entries = read_dataset(data_dir / "coco" / "instances.json")["images"]
    return {entry["id"]: cv2.imread(str(data_dir / "coco" / "images" / entry["file_name"])) for entry in entries}


def video_frames(path: Path, count: int) -> list[Any]:
    with opened(path) as video:
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = []
        for index in np.linspace(0, total - 2, count).astype(int):
            video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
            read_one, frame = video.read()
            assert read_one
            frames.append(frame)
        return frames


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    video = cv2.VideoCapture(str(path))
    yield video
    video.release()


def assert_same_candidates(mine: Rows, reference: Rows, side: int) -> None:
    """Boxes within 1 pixel, objectness and scores within 1e-3, for every candidate."""
    assert mine.shape == reference.shape
    seen = mine[:, 5:].max(axis=1) >= 0.01
    assert np.abs(mine[seen, :4] - reference[seen, :4]).max(initial=0.0) * side < 1.0
    np.testing.assert_allclose(mine[:, 4:], reference[:, 4:], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", DETECTORS)
def test_candidates_on_pictures_and_video_are_opencvs(data_dir: Path, name: str) -> None:
    definition, weights = read(data_dir, name)
    config = parse_cfg(definition)
    network = load_network(config, weights)
    reference = OpenCvReader(definition, weights, 1e-5)
    videos = ("highway-camera.mp4", "highway-dashcam.mp4", "highway-dashcam-720p.mp4", "car-detection.mp4")
    pictures = list(coco_pictures(data_dir).values())
    pictures += [frame for video in videos for frame in video_frames(data_dir / "videos" / video, 3)]
    strong = 0
    for index, picture in enumerate(pictures):
        side = (160, 320, 416)[index % 3]
        blob = to_blob(picture, side)
        mine = scored(ours(network, blob)[0])
        strong += int((mine[:, 5:] > 0.3).sum())
        assert_same_candidates(mine, reference(blob, config), side)
    assert strong > 50


@pytest.mark.parametrize("name", DETECTORS)
def test_a_fused_network_gives_the_same_candidates(data_dir: Path, name: str) -> None:
    definition, weights = read(data_dir, name)
    network = load_network(parse_cfg(definition), weights)
    (frame,) = video_frames(data_dir / "videos" / "highway-camera.mp4", 1)
    blob = to_blob(frame, 256)
    before = scored(ours(network, blob)[0])
    assert_same_candidates(scored(ours(network.fuse(), blob)[0]), before, 256)


def opencv_detections(rows: Rows) -> Detections:
    """Suppression by OpenCV too, so that ours is checked as well."""
    candidates, classes = np.nonzero(rows[:, 5:] >= AP_SCORE_THRESHOLD)
    scores = rows[candidates, 5 + classes]
    corner_and_sides = rows[candidates, :4].astype(np.float64)
    corner_and_sides[:, :2] -= corner_and_sides[:, 2:] / 2
    kept = np.array(
        cv2.dnn.NMSBoxesBatched(
            corner_and_sides.tolist(), scores.tolist(), classes.tolist(), AP_SCORE_THRESHOLD, IOU_THRESHOLD
        ),
        np.intp,
    ).reshape(-1)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:100]
    boxes = corner_and_sides[kept]
    boxes[:, 2:] += boxes[:, :2]
    return Detections(boxes.clip(0, 1).astype(np.float32), scores[kept], classes[kept].astype(np.int32))


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("side", [128, 192, 256, 320, 416, 512, 608])
def test_average_precision_on_coco_is_opencvs(
    data_dir: Path, name: str, side: int, record_property: pytest.RecordProperty
) -> None:
    definition, weights = read(data_dir, name)
    config = parse_cfg(definition)
    network = load_network(config, weights).fuse()
    reference = OpenCvReader(definition, weights, AP_SCORE_THRESHOLD)
    truth = read_dataset(data_dir / "coco" / "instances.json")
    classes = (data_dir / "models" / "yolo-fastest-1.1" / "coco.names").read_text().splitlines()
    mine: dict[int, Detections] = {}
    theirs: dict[int, Detections] = {}
    for image_id, picture in coco_pictures(data_dir).items():
        blob = to_blob(picture, side)
        (mine[image_id],) = postprocess(ours(network, blob), AP_SCORE_THRESHOLD, IOU_THRESHOLD, multi_label=True)
        theirs[image_id] = opencv_detections(reference(blob, config))
    found = average_precision(truth, mine, classes)
    expected = average_precision(truth, theirs, classes)
    record_property("ap50", f"{found.ap50:.4f} (OpenCV {expected.ap50:.4f})")
    assert expected.ap50 > 0.15
    assert found.ap50 == pytest.approx(expected.ap50, abs=0.002)
    assert found.ap == pytest.approx(expected.ap, abs=0.002)


def new_coords(definition: str) -> str:
    """Scaled-YOLOv4's heads: a logistic activation before ``[yolo]`` and ``new_coords=1``."""
    definition = definition.replace("activation=linear\n\n\n\n[yolo]", "activation=logistic\n\n[yolo]")
    definition = definition.replace("activation=linear\n\n[yolo]", "activation=logistic\n\n[yolo]")
    assert definition.count("activation=logistic") == definition.count("[yolo]")
    return definition.replace("[yolo]", "[yolo]\nnew_coords=1")


@pytest.mark.parametrize(
    ("name", "side", "scaled"), [("yolov4-tiny", 96, False), ("yolov4-tiny", 96, True), ("yolov4", 64, False)]
)
def test_yolov4_with_random_weights_in_the_file_format_is_opencvs(
    data_dir: Path, name: str, side: int, scaled: bool
) -> None:
    definition = (data_dir / "models" / "darknet" / f"{name}.cfg").read_text()
    if scaled:
        definition = new_coords(definition)
    config = parse_cfg(definition)
    weights = random_weights(config)
    assert len(weights) == {"yolov4": 257_717_640, "yolov4-tiny": 24_251_276}[name]
    network = load_network(config, weights)
    reference = OpenCvReader(definition, weights, 1e-5)
    blob = np.random.default_rng(1).random((1, 3, side, side), np.float32)
    mine = scored(ours(network, blob)[0])
    assert mine[:, 5:].std() > 0.01
    assert_same_candidates(mine, reference(blob, config), side)


def test_every_kind_of_section_is_opencvs() -> None:
    config = parse_cfg(EVERYTHING)
    weights = random_weights(config)
    blob = np.random.default_rng(1).random((1, 3, 64, 64), np.float32)
    mine = scored(ours(load_network(config, weights), blob)[0])
    assert_same_candidates(mine, OpenCvReader(EVERYTHING, weights, 1e-5)(blob, config), 64)


def random_weights(config: NetworkConfig) -> bytes:
    """Weights whose activations neither vanish nor explode; batch statistics are not the neutral ones."""
    generator = torch.Generator().manual_seed(11)
    network = random_network(config, generator)
    with torch.no_grad():
        for block in network.blocks():
            arrays = block.named_arrays()
            if block.norm is not None:
                arrays["bias"].uniform_(-0.2, 0.2, generator=generator)
                arrays["mean"].uniform_(-0.2, 0.2, generator=generator)
                arrays["scale"].uniform_(0.5, 1.0, generator=generator)
                arrays["variance"].uniform_(0.5, 1.5, generator=generator)
            else:
                arrays["bias"].uniform_(-1.0, 1.0, generator=generator)
    return save_weights(network)
