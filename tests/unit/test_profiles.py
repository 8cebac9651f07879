"""Profile files: Jellyfish's formats, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moonjelly import profiles
from moonjelly.errors import ProfileError
from moonjelly.profiles import ProfileOptions
from moonjelly.types import Variant

VARIANTS = (Variant("net-128", "net", 128), Variant("net-160", "net", 160))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two sizes at batches 1 and 2, twelve rows each: two slow ones first, then 1, 2, ... 10 times a factor."""
    kind = tmp_path / "bench"
    for factor, variant in enumerate(VARIANTS, start=1):
        runs = {
            batch: [500.0, 400.0, *(float(factor * batch * step) for step in range(1, 11))] for batch in (1, 2)
        }  # fmt: skip
        key = str(variant.input_size)
        profiles.write_latency(profiles.latency_file(kind, key), key, runs)
    profiles.write_accuracy(kind / "accuracy.txt", {"128": 0.25, "160": 0.5})
    return kind


def read(directory: Path, **options: object) -> profiles.Profile:
    return profiles.read_profile(directory, VARIANTS, "input_size", ProfileOptions(**options))  # type: ignore[arg-type]


def latency_text(directory: Path, text: str) -> None:
    profiles.latency_file(directory, "128").write_text(text)


def test_files_have_the_headers_of_jellyfish(directory: Path) -> None:
    lines = profiles.latency_file(directory, "128").read_text().splitlines()
    assert lines[:2] == ["ModelSize,Batch,InferenceTime", "128,1,500"]
    assert (directory / "accuracy.txt").read_text() == "ModelSize,Accuracy\n128,0.250000\n160,0.500000\n"


def test_a_profile_is_the_percentile_of_the_rows_after_the_warm_up(directory: Path) -> None:
    profile = read(directory, warmup_rows=2, percentile=50)
    assert profile.device_kind == "bench"
    assert profile.accuracy == (0.25, 0.5)
    assert profile.latency_ms == ((5.5, 11.0), (11.0, 22.0))
    assert profile.throughput(1, 2) == pytest.approx(1000 * 2 / 22.0)
    assert read(directory, warmup_rows=2, percentile=100).latency_ms[0] == (10.0, 20.0)


def test_by_default_it_is_the_99th_and_ten_rows_are_warm_up(directory: Path) -> None:
    profile = read(directory)
    assert profile.latency_ms[0][0] == pytest.approx(np.percentile([9.0, 10.0], 99))


def test_the_provenance_says_how_many_rows_are_warm_up(directory: Path) -> None:
    profiles.write_provenance(directory, {"warmup_rows": 2})
    assert read(directory, percentile=50).latency_ms[0][0] == 5.5
    assert read(directory, percentile=50, warmup_rows=0).latency_ms[0][0] == 6.5


def test_fewer_batches_can_be_read(directory: Path) -> None:
    assert read(directory, max_batch=1).max_batch == 1


def test_files_of_a_windows_editor_are_read(directory: Path) -> None:
    rows = "".join(f"128, {batch}, 7.5\r\n" for batch in (1, 2) for _ in range(11))
    latency_text(directory, "\ufeffModelSize, Batch, InferenceTime\r\n" + rows + "\r\n")
    assert read(directory).latency_ms[0] == (7.5, 7.5)


def test_monotone_raises_what_falls() -> None:
    table = ((3.0, 2.0, 5.0), (1.0, 4.0, 4.5))
    assert profiles.monotone(table, "none") == table
    assert profiles.monotone(table, "batch") == ((3.0, 3.0, 5.0), (1.0, 4.0, 4.5))
    assert profiles.monotone(table) == ((3.0, 3.0, 5.0), (3.0, 4.0, 5.0))


def test_without_correction_a_falling_row_is_refused(directory: Path) -> None:
    latency_text(directory, "ModelSize,Batch,InferenceTime\n" + "128,1,9\n" * 11 + "128,2,8\n" * 11)
    assert read(directory).latency_ms[0] == (9.0, 9.0)
    with pytest.raises(ProfileError, match=r"'net-128' falls from 9\.0 to 8\.0 ms at batch 2"):
        read(directory, monotone="none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"begins with ''; 'ModelSize,Batch,InferenceTime' is expected"),
        ("Size,Batch,Time\n128,1,5\n", r"begins with 'Size,Batch,Time'"),
        ("ModelSize,Batch,InferenceTime\n", r"has no rows for batch 1"),
        ("ModelSize,Batch,InferenceTime\n" + "128,1,5\n" * 11 + "128,3,5\n" * 11, r"no rows for batch 2"),
        ("ModelSize,Batch,InferenceTime\n160,1,5\n", r"line 2: ModelSize is '160', the file is for '128'"),
        ("ModelSize,Batch,InferenceTime\n128,1\n", r"line 2: 2 cells, 3 expected"),
        ("ModelSize,Batch,InferenceTime\n128,one,5\n", r"Batch 'one' is not a number"),
        ("ModelSize,Batch,InferenceTime\n128,1.5,5\n", r"Batch '1\.5' is not a whole number"),
        ("ModelSize,Batch,InferenceTime\n128,0,5\n", r"Batch 0 must be in \[1, inf\]"),
        ("ModelSize,Batch,InferenceTime\n128,1,-5\n", r"InferenceTime -5 must be in"),
        ("ModelSize,Batch,InferenceTime\n128,1,nan\n", r"InferenceTime nan must be in"),
        ("ModelSize,Batch,InferenceTime\n128,1,inf\n", r"InferenceTime inf must be in"),
        ("ModelSize,Batch,InferenceTime\n" + "128,1,5\n" * 10, r"10 rows for batch 1 and the first 10 are warm-up"),
        ("ModelSize,Batch,InferenceTime\n" + "128,1,5\n" * 11, r"different batch sizes per variant"),
        (
            "ModelSize,Batch,InferenceTime\n" + "128,1,0\n" * 11 + "128,2,0\n" * 11,
            r"latency of 'net-128' at batch 1 is",
        ),
    ],
)
def test_a_faulty_latency_file_is_named_with_its_fault(directory: Path, text: str, words: str) -> None:
    latency_text(directory, text)
    with pytest.raises(ProfileError, match=words):
        read(directory)


def test_a_missing_latency_file_names_the_remedy(directory: Path) -> None:
    profiles.latency_file(directory, "160").unlink()
    with pytest.raises(ProfileError, match=r"profile_latency_160\.txt does not exist; 'moonjelly profile' makes it"):
        read(directory)


def test_a_file_that_is_no_text_is_refused(directory: Path) -> None:
    profiles.latency_file(directory, "128").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        read(directory)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ModelSize,Accuracy\n128,0.2\n", r"no row for '160' \(variant 'net-160'\); it has 128"),
        ("ModelSize,Accuracy\n128,0.2\n128,0.3\n160,0.4\n", r"line 3: '128' is there twice"),
        ("ModelSize,Accuracy\n128,20\n160,40\n", r"Accuracy 20 must be in \[0, 1\]"),
    ],
)
def test_a_faulty_accuracy_file_is_named_with_its_fault(directory: Path, text: str, words: str) -> None:
    (directory / "accuracy.txt").write_text(text)
    with pytest.raises(ProfileError, match=words):
        read(directory)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "cannot be read"), ("[]", "no JSON object"), ('{"warmup_rows": "x"}', "not a count")]
)
def test_a_faulty_provenance_is_named_with_its_fault(directory: Path, text: str, words: str) -> None:
    (directory / "provenance.json").write_text(text)
    with pytest.raises(ProfileError, match=words):
        read(directory)


@pytest.mark.parametrize("options", [{"percentile": 0}, {"percentile": 101}, {"warmup_rows": -1}, {"max_batch": 0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ProfileError):
        ProfileOptions(**options)  # type: ignore[arg-type]


def test_jellyfish_s_own_files_are_read(data_dir: Path) -> None:
    variants = tuple(Variant(f"yolov4-{size}", "yolov4", size) for size in range(128, 609, 32))
    profile = profiles.read_profile(data_dir / "profiles" / "reference-gpu", variants, "input_size")
    assert profile.max_batch == 12
    assert profile.accuracy[-1] == 0.432
    middle = (0.08315 * 608**2 - 0.04463 * 608 + 0.03757) / 1000 * (0.75 + 0.25 * 12)
    assert middle < profile.latency_ms[-1][-1] < 1.021 * middle
