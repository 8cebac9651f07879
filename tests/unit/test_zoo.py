"""Zoos: what a zoo.toml may say, and what is said when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from moonjelly import profiles
from moonjelly.errors import ProfileError, ZooError
from moonjelly.repository import ModelCard, ModelRepository, Zoo, load_zoo, source_digest, zoo_names

ZOO = """
format = 1
name = "toy"
classes = ["car", "bus"]

[models.small]
definition = "small.cfg"
weights = "small.weights"

[models.large]
architecture = "pth"
definition = "large.cfg"
weights = "data:nets/large.pth"

[[variants]]
name = "small-96"
model = "small"
input_size = 96

[[variants]]
name = "large-96"
model = "large"
input_size = 96
precision = "fp16"
"""

ONE_MODEL = """
format = 1
name = "sizes"
group = "night"
classes = "names.txt"

[models.net]
definition = "net.cfg"
weights = "net.weights"

[[variants]]
name = "net-64"
model = "net"
input_size = 64

[[variants]]
name = "net-96"
model = "net"
input_size = 96
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOONJELLY_DATA", str(tmp_path / "data"))
    folder = tmp_path / "profiles" / "toy"
    folder.mkdir(parents=True)
    (folder / "zoo.toml").write_text(ZOO)
    (folder / "small.cfg").write_text("[net]")
    (folder / "small.weights").write_bytes(b"weights")
    return folder


def write_profile(folder: Path, kind: str, accuracies: dict[str, float], latency_ms: float = 5.0) -> None:
    for key in accuracies:
        file = profiles.latency_file(folder / kind, key)
        profiles.write_latency(file, key, {1: [latency_ms] * 12, 2: [2 * latency_ms] * 12})
    profiles.write_accuracy(folder / kind / "accuracy.txt", accuracies)


def with_text(folder: Path, old: str, new: str) -> Path:
    text = (folder / "zoo.toml").read_text()
    assert old in text
    (folder / "zoo.toml").write_text(text.replace(old, new, 1))
    return folder


def test_a_zoo_is_found_by_directory_by_file_and_by_name(folder: Path) -> None:
    for where in (folder, str(folder / "zoo.toml")):
        assert load_zoo(where).name == "toy"
    assert load_zoo("toy", search=[folder.parent]).directory == folder.resolve()
    assert zoo_names([folder.parent]) == ("toy",)


def test_its_variants_keep_their_order_and_defaults(folder: Path) -> None:
    zoo = load_zoo(folder)
    assert [variant.name for variant in zoo.variants] == ["small-96", "large-96"]
    assert [variant.precision for variant in zoo.variants] == ["fp32", "fp16"]
    assert (zoo.group, zoo.classes) == ("default", ("car", "bus"))
    assert zoo.index("large-96") == 1
    assert zoo.variant("large-96").input_size == 96
    with pytest.raises(ZooError, match="no variant 'huge'; it has small-96, large-96"):
        zoo.index("huge")


def test_profiles_are_keyed_by_size_where_one_model_has_several(folder: Path) -> None:
    assert load_zoo(folder).profile_key == "variant"
    (folder / "zoo.toml").write_text(ONE_MODEL)
    (folder / "names.txt").write_text("car\nbus\n\n")
    zoo = load_zoo(folder)
    assert (zoo.profile_key, zoo.group, zoo.classes) == ("input_size", "night", ("car", "bus"))
    write_profile(folder, "cpu", {"64": 0.1, "96": 0.2})
    assert zoo.profile("cpu").accuracy == (0.1, 0.2)


def test_a_source_is_read_with_its_digest(folder: Path) -> None:
    source = load_zoo(folder).source("small")
    assert (source.architecture, source.definition, source.weights) == ("darknet", "[net]", b"weights")
    assert source.classes == ("car", "bus")
    assert source.digest == source_digest("[net]", b"weights")


def test_weights_may_lie_in_the_data_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "large.cfg").write_text("[net]")
    zoo = load_zoo(folder)
    with pytest.raises(ZooError, match=r"model 'large' of zoo 'toy'.*'nets/large\.pth'.*download_data\.sh"):
        zoo.source("large")
    (tmp_path / "data" / "nets").mkdir(parents=True)
    (tmp_path / "data" / "nets" / "large.pth").write_bytes(b"pth")
    source = zoo.source("large")
    assert (source.architecture, source.weights) == ("pth", b"pth")


def test_missing_weights_are_named_and_do_not_matter_to_who_does_not_look(folder: Path) -> None:
    (folder / "small.weights").unlink()
    zoo = load_zoo(folder)
    with pytest.raises(ZooError, match=r"weights file of model 'small' of zoo 'toy' is missing: .*small\.weights"):
        zoo.source("small")
    assert zoo.source("small", with_weights=False).weights == b""
    with pytest.raises(ZooError, match="is missing"):
        zoo.verify()
    with pytest.raises(ZooError, match="no model 'medium'; it has small, large"):
        zoo.source("medium", with_weights=False)


def test_a_model_may_come_from_a_repository(folder: Path) -> None:
    repository = ModelRepository(folder / "versions")
    card = ModelCard("darknet", 96, ("car", "bus"))
    repository.publish("small", card, "[net]", b"first")
    with_text(folder, 'definition = "small.cfg"\nweights = "small.weights"', 'repository = "versions"')
    zoo = load_zoo(folder)
    assert zoo.source("small").weights == b"first"
    repository.publish("small", ModelCard("darknet", 96, ("car", "bus"), parent=1), "[net]", b"second")
    assert zoo.source("small").weights == b"second"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 1", "format = 2", r"'format' = 2"),
        ("format = 1", "format = 1\nprecison = 3", r"unknown key 'precison'; known keys: .*variants"),
        ('name = "toy"', 'name = "../toy"', r"zoo name '\.\./toy' is not allowed"),
        ('name = "large-96"', 'name = "a/b"', r"variant name 'a/b' is not allowed"),
        ('name = "large-96"', 'name = "small-96"', r"variant 'small-96' is there twice"),
        ('model = "large"', 'model = "lrage"', r"names the model 'lrage'; \[models\] has small, large"),
        ("input_size = 96", "input_size = 0", r"input_size.* = 0"),
        (
            "input_size = 96",
            "input_size = 96\ndepth = 3",
            r"unknown key '.*depth'; known keys: input_size, model, name",
        ),
        (
            'architecture = "pth"',
            'architecture = "pth"\ndepth = 3',
            r"'models\.large\.depth'; known keys: architecture,",
        ),
        ('precision = "fp16"', 'precision = "int4"', r"precision.* = 'int4'"),
        ('classes = ["car", "bus"]', "classes = []", r"classes is empty"),
        ('classes = ["car", "bus"]', 'classes = "absent.names"', r"list of class names is missing.*absent\.names"),
        ("format = 1", 'format = 1\nprofile_key = "input_size"', r"different input sizes"),
        ("format = 1", "format = [", r"cannot be read"),
        ('architecture = "pth"', 'architecture = "tflite"', r"architecture.* = 'tflite'"),
    ],
)
def test_a_faulty_zoo_is_named_with_its_fault(folder: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ZooError, match=r"zoo\.toml: .*" + words):
        load_zoo(with_text(folder, old, new))


def test_an_unknown_zoo_says_which_there_are(folder: Path) -> None:
    with pytest.raises(ZooError, match=r"no zoo 'tyo'.*there are toy"):
        load_zoo("tyo", search=[folder.parent])


def test_a_profile_is_read_per_kind(folder: Path) -> None:
    zoo = load_zoo(folder)
    with pytest.raises(ProfileError, match=r"'cpu' \(it has none\); make one with 'moonjelly profile --zoo toy'"):
        zoo.profile("cpu")
    write_profile(folder, "cpu", {"small-96": 0.3, "large-96": 0.4})
    assert zoo.kinds() == ("cpu",)
    profile = zoo.profile("cpu")
    assert (profile.device_kind, profile.accuracy, profile.max_batch) == ("cpu", (0.3, 0.4), 2)
    with pytest.raises(ProfileError, match=r"'nvidia-h200' \(it has cpu\)"):
        zoo.profile("nvidia-h200")


def test_what_this_machine_measured_comes_before_what_was_shipped(folder: Path) -> None:
    write_profile(folder, "cpu", {"small-96": 0.3, "large-96": 0.4}, latency_ms=5.0)
    write_profile(folder / "measured", "cpu", {"small-96": 0.3, "large-96": 0.4}, latency_ms=7.0)
    write_profile(folder / "measured", "half.partial", {"small-96": 0.3, "large-96": 0.4})
    zoo = load_zoo(folder)
    assert zoo.kinds() == ("cpu",)
    assert zoo.profile("cpu").latency_ms[0][0] == 7.0


def test_accuracies_must_grow_along_the_zoo(folder: Path) -> None:
    write_profile(folder, "cpu", {"small-96": 0.5, "large-96": 0.4})
    with pytest.raises(ProfileError, match=r"'large-96' is less accurate \(0\.4\) than 'small-96' \(0\.5\)"):
        load_zoo(folder).profile("cpu")


@pytest.fixture(params=["yolov4", "yolo-fastest"])
def shipped(request: pytest.FixtureRequest) -> Zoo:
    return load_zoo(request.param)


def test_shipped_zoos_have_readable_profiles_with_provenance(shipped: Zoo) -> None:
    assert shipped.kinds()
    for kind in shipped.kinds():
        profile = shipped.profile(kind)
        assert profile.max_batch == 12
        assert len(shipped.classes) == 80
        assert profiles.read_provenance(shipped.profile_directory(kind))["made_by"].startswith("moonjelly")


def test_the_shipped_zoo_s_models_are_in_the_data(data_dir: Path) -> None:
    load_zoo("yolo-fastest").verify()
