"""The profiler with real device processes: simulated devices, and a random detector through onnxruntime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from moonjelly import profiles
from moonjelly.errors import ConfigError, ExecutorError, MoonjellyError, ProfileError, ZooError
from moonjelly.repository import load_zoo
from server.profiler import ProfilerOptions, run_profile
from server.profiler.reference import write_reference
from server.profiler.run import Progress
from tests.support.models import CLASSES, tiny_source

ZOO = """
format = 1
name = "tiny"
classes = ["car", "person", "bus"]

[models.tiny]
definition = "tiny.cfg"
weights = "tiny.weights"

[[variants]]
name = "tiny-64"
model = "tiny"
input_size = 64

[[variants]]
name = "tiny-128"
model = "tiny"
input_size = 128
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A zoo with a profile of the simulated kind ``bench``: 3 ms, and 1 ms more per frame."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    source = tiny_source()
    (folder / "zoo.toml").write_text(ZOO)
    (folder / "tiny.cfg").write_text(source.definition)
    (folder / "tiny.weights").write_bytes(source.weights)
    for size in ("64", "128"):
        rows = {batch: [3.0 + batch] * 12 for batch in range(1, 4)}
        profiles.write_latency(profiles.latency_file(folder / "bench", size), size, rows)
    profiles.write_accuracy(folder / "bench" / "accuracy.txt", {"64": 0.2, "128": 0.4})
    return folder


def options(folder: Path, **more: object) -> ProfilerOptions:
    base: dict[str, object] = {
        "zoo": str(folder),
        "runtime": "simulated",
        "kind": "bench",
        "out": folder.parent / "out",
        "num_gpus": 2,
        "max_batch": 3,
        "num_batches": 12,
    }
    return ProfilerOptions.model_validate({**base, **more})


def test_two_simulated_devices_measure_what_they_simulate(zoo: Path) -> None:
    seen: list[Progress] = []
    result = run_profile(options(zoo), seen.append)
    assert result.directory == zoo.parent / "out" / "bench"
    assert result.profile is not None
    assert result.profile.accuracy == (0.2, 0.4)
    for row in result.profile.latency_ms:
        assert len(row) == 3
        assert all(value >= 0.97 * (3.0 + batch) for batch, value in enumerate(row, start=1))
    rows = profiles.read_latency(result.directory / "latency" / "profile_latency_64.txt", "64")
    assert {batch: len(times) for batch, times in rows.items()} == {1: 12, 2: 12, 3: 12}
    provenance = profiles.read_provenance(result.directory)
    assert provenance["device"] == {"kind": "bench", "name": "simulated bench", "runtime": "simulated"}
    assert provenance["accuracy"] == "taken from the zoo's profile 'bench'"
    assert provenance["options"]["num_batches"] == 12
    assert provenance["date"]
    assert provenance["versions"]["moonjelly"]
    assert seen[-1].done == pytest.approx(seen[-1].total)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_a_profile_that_exists_is_never_overwritten(zoo: Path) -> None:
    before = (zoo / "bench" / "accuracy.txt").read_bytes()
    with pytest.raises(ProfileError, match=r"bench exists and profiles are never overwritten; name another --out"):
        run_profile(options(zoo, out=zoo))
    assert (zoo / "bench" / "accuracy.txt").read_bytes() == before
    assert not list(zoo.glob("*.partial"))


def test_a_stopped_run_keeps_what_it_finished_and_goes_on_from_there(zoo: Path) -> None:
    begun: set[str] = set()
    result = run_profile(options(zoo, num_gpus=1), lambda progress: begun.add(progress.doing), lambda: len(begun) >= 2)
    assert result.directory is None
    assert 0 < result.pending < 6
    partial = zoo.parent / "out" / "bench.partial"
    kept = profiles.read_latency(partial / "latency" / "profile_latency_64.txt", "64")
    assert kept
    assert not (zoo.parent / "out" / "bench").exists()
    with pytest.raises(ProfileError, match="was begun with options"):
        run_profile(options(zoo, num_gpus=1, num_batches=20))
    result = run_profile(options(zoo, num_gpus=1))
    assert result.directory is not None
    assert not partial.exists()
    whole = profiles.read_latency(result.directory / "latency" / "profile_latency_64.txt", "64")
    assert {batch: whole[batch] for batch in kept} == kept


def test_measured_profiles_go_beside_the_shipped_ones_and_are_preferred(zoo: Path) -> None:
    result = run_profile(options(zoo, out=None, max_batch=2))
    assert result.directory == zoo.resolve() / "measured" / "bench"
    assert load_zoo(zoo).profile("bench").max_batch == 2


def test_a_profile_of_some_variants_does_not_hide_the_whole_one(zoo: Path) -> None:
    result = run_profile(options(zoo, out=None, num_gpus=1, max_batch=1, num_dnns=1))
    assert result.directory == zoo.resolve() / "measured" / "bench"
    assert load_zoo(zoo).profile_directory("bench") == zoo.resolve() / "bench"
    shutil.rmtree(zoo / "bench")
    with pytest.raises(ProfileError, match=r"measured/bench/accuracy\.txt has no row"):
        load_zoo(zoo).profile("bench")


def test_a_slow_cell_ends_at_its_limit(zoo: Path) -> None:
    result = run_profile(options(zoo, num_gpus=1, max_batch=1, num_dnns=1, num_batches=100_000, limit_s=0.2))
    assert result.directory is not None
    rows = profiles.read_latency(result.directory / "latency" / "profile_latency_64.txt", "64")
    assert 15 <= len(rows[1]) < 1000
    assert result.profile is not None
    assert len(result.profile.variants) == 1


def write_coco(folder: Path) -> Path:
    """Two noise pictures, one JPEG and one PNG, with a box each."""
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in ("one.jpg", "two.png"):
        cv2.imwrite(str(folder / "images" / name), draw.integers(0, 256, (80, 120, 3), dtype=np.uint8))
    names = ("one.jpg", "two.png")
    shape = {"width": 120, "height": 80}
    box = {"category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    truth = {
        "images": [{"id": number, "file_name": name, **shape} for number, name in enumerate(names)],
        "annotations": [{"id": number + 1, "image_id": number, **box} for number in range(2)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
    }
    (folder / "instances.json").write_text(json.dumps(truth))
    return folder


def test_a_real_runtime_is_measured_with_average_precision(zoo: Path, tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco")
    result = run_profile(
        options(zoo, runtime="onnx", kind=None, num_gpus=1, max_batch=2, coco=coco, metric="ap50", clock="cpu")
    )
    assert result.directory == zoo.parent / "out" / "cpu"
    assert result.profile is not None
    assert all(0.0 <= value <= 1.0 for value in result.profile.accuracy)
    provenance = profiles.read_provenance(result.directory)
    assert provenance["accuracy"] == "ap50 by pycocotools on coco/instances.json"
    assert provenance["device"]["runtime"] == "onnx"
    assert "cpu clock" in provenance["what"]
    assert provenance["versions"]["onnxruntime"]


def test_f1_against_a_golden_variant_is_one_for_itself(zoo: Path, data_dir: Path) -> None:
    video = data_dir / "videos" / "highway-dashcam-720p.mp4"
    golden = {
        "runtime": "onnx",
        "kind": None,
        "num_gpus": 1,
        "max_batch": 1,
        "golden": "tiny-128",
        "video": video,
        "frames": 4,
    }
    result = run_profile(options(zoo, **golden))
    assert result.profile is not None
    assert result.profile.accuracy[1] == 1.0
    assert result.profile.accuracy[0] < 1.0


@pytest.mark.parametrize(
    ("more", "fault", "words"),
    [
        ({"kind": None}, ConfigError, r"runtime 'simulated' needs 'kind', one of bench"),
        ({"kind": "nvidia-h200"}, MoonjellyError, r"no profile for device kind 'nvidia-h200' \(it has bench\)"),
        ({"num_batches": 10}, ConfigError, r"num_batches 10 must be more than warmup 10"),
        ({"max_batch": 9}, ExecutorError, r"'tiny-\d+' at batch 1: .*batches up to 9"),
        ({"golden": "tiny-64"}, ConfigError, r"'golden' needs 'video'"),
        ({"runtime": "onnx", "coco": "x", "golden": "tiny-64"}, ConfigError, r"'coco' and 'golden' are ways"),
        ({"accuracy": "x"}, ConfigError, r"'accuracy' = x does not exist"),
        ({"coco": "x"}, ConfigError, r"a simulated device has no accuracy of its own"),
        ({"runtime": "onnx", "coco": "x"}, ConfigError, r"x/instances\.json cannot be read"),
        ({"runtime": "onnx", "golden": "tiny-64", "video": "x.mp4"}, MoonjellyError, r"video x\.mp4 does not exist"),
        ({"clock": "cpu"}, ConfigError, r"a simulated device sleeps"),
        ({"zoo": "absent"}, MoonjellyError, r"no zoo 'absent'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_anything_is_written(
    zoo: Path, more: dict[str, object], fault: type[Exception], words: str
) -> None:
    with pytest.raises(fault, match=words):
        run_profile(options(zoo, **more))
    assert not (zoo.parent / "out" / "bench").exists()


def test_a_zoo_with_missing_weights_is_named(zoo: Path) -> None:
    (zoo / "tiny.weights").unlink()
    with pytest.raises(ZooError, match=r"weights file of model 'tiny' of zoo 'tiny' is missing"):
        run_profile(options(zoo, runtime="onnx", kind=None, num_gpus=1))
    assert not (zoo.parent / "out").exists()


def test_a_model_that_cannot_be_built_is_named(zoo: Path) -> None:
    (zoo / "tiny.weights").write_bytes(b"too short")
    with pytest.raises(ExecutorError, match=r"'tiny-64' at batch 1: the weights end after 9 bytes"):
        run_profile(options(zoo, runtime="onnx", kind=None, num_gpus=1))


def test_a_zoo_without_accuracies_says_how_to_measure_them(zoo: Path) -> None:
    (zoo / "bench" / "accuracy.txt").write_text("ModelSize,Accuracy\n64,0.2\n")
    with pytest.raises(ProfileError, match="measure them with --coco FOLDER"):
        run_profile(options(zoo, runtime="onnx", kind=None, num_gpus=1))


def test_the_shipped_made_up_gpu_is_what_its_formula_writes(tmp_path: Path) -> None:
    shipped = load_zoo("yolov4").directory / "reference-gpu"
    written = write_reference(tmp_path)
    for file in (path.relative_to(written) for path in written.rglob("*.txt")):
        assert (shipped / file).read_bytes() == (written / file).read_bytes(), file
