"""What a training is made of, as far as it needs no torch: networks, recipes, its folder, the choice of variants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from moonjelly.errors import ZooError
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.weights import decode_weights
from moonjelly.repository import load_zoo
from moonjelly.scenes import CLASSES
from moonjelly.training.architectures import ARCHITECTURES, Architecture, definition, multiply_adds
from moonjelly.training.recipes import HELD_OUT, Recipe, full_recipe, part_names, quick_recipe
from moonjelly.training.samples import SampleOptions, draw_samples
from moonjelly.training.store import Measured, TrainingFolder, make_plan, read_samples, write_samples
from moonjelly.training.zoo import LEAST_GAIN, begin_training, front, variant_name


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_definitions_are_networks(architecture: Architecture) -> None:
    config = parse_cfg(definition(architecture, 160))
    assert (config.width, config.class_count) == (160, len(CLASSES))
    anchors = [anchor for stage in architecture.stages for anchor in stage.anchors]
    assert sorted(anchor for head in config.heads for anchor in head.anchors) == sorted(anchors)
    # Small anchors belong to fine grids.
    sizes = [max(max(anchor) for anchor in head.anchors) for head in sorted(config.heads, key=lambda head: head.stride)]
    assert sizes == sorted(sizes)


def test_cost_grows_with_the_picture_and_from_model_to_model() -> None:
    configs = [parse_cfg(definition(architecture, 160)) for architecture in ARCHITECTURES]
    for config in configs:
        assert multiply_adds(config, 320) == 4 * multiply_adds(config, 160)
    costs = [multiply_adds(config, 224) for config in configs]
    assert costs == sorted(costs)


@pytest.mark.parametrize("recipe", [full_recipe(0), quick_recipe(0)], ids=["full", "quick"])
def test_every_input_size_fits_its_network(recipe: Recipe) -> None:
    for model in recipe.models:
        stride = parse_cfg(definition(model.architecture, 160)).stride
        assert all(size % stride == 0 for size in (*model.teach, *model.serve))


def test_the_full_recipe_offers_eight_variants_and_more() -> None:
    assert sum(len(model.serve) for model in full_recipe(0).models) >= 10


def test_pictures_are_drawn_from_scenes_of_their_own() -> None:
    used = [
        range(part.first_seed, part.first_seed + part.scenes) for part in (*full_recipe(0).parts, *full_recipe(1).parts)
    ]
    held_out = full_recipe(0).held_out
    assert held_out == full_recipe(1).held_out
    used.append(range(held_out.first_seed, held_out.first_seed + held_out.scenes))
    seeds = [seed for part in used for seed in part]
    assert len(seeds) == len(set(seeds))
    assert part_names(full_recipe(0)) == ("0", "1", "2", "3", HELD_OUT)


def test_a_folder_belongs_to_one_training(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path / "work")
    plan = make_plan(quick_recipe(0), 0, True)
    folder.claim(plan)
    folder.claim(plan)
    with pytest.raises(ZooError, match=r"holds another training \(seed 0, quick True\); choose another --out"):
        folder.claim(make_plan(quick_recipe(4), 4, True))
    (folder.directory / "plan.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, format=1)))
    with pytest.raises(ZooError, match=r"what another version has begun \(format 1, not 2\); choose another --out"):
        folder.claim(plan)
    (folder.directory / "plan.json").write_text("{")
    with pytest.raises(ZooError, match="is not readable"):
        folder.claim(plan)


@pytest.mark.parametrize("theirs", ["notes.txt", "training/notes.txt"])
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(theirs: str, tmp_path: Path) -> None:
    file = tmp_path / "zoo" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ZooError, match=r"no training's; choose"):
        begin_training(tmp_path / "zoo", quick=True)
    assert [path for path in (tmp_path / "zoo").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_a_training_is_begun_in_an_empty_folder_and_gone_on_with(tmp_path: Path) -> None:
    first, again = begin_training(tmp_path, quick=True), begin_training(tmp_path, quick=True)
    assert first.stages == again.stages
    assert [len(stage) for stage in first.stages] == [2, 2]


def test_samples_survive_the_disk(tmp_path: Path) -> None:
    samples = draw_samples(SampleOptions(first_seed=7, scenes=1, frames=2, varied_mix=True))
    assert any(sample.ignored.any() for sample in samples)
    assert any(not sample.ignored.all() for sample in samples)
    file = tmp_path / "samples.npz"
    write_samples(file, samples)
    for kept, sample in zip(read_samples(file), samples, strict=True):
        assert kept.jpeg == sample.jpeg
        assert np.array_equal(kept.boxes, sample.boxes)
        assert np.array_equal(kept.classes, sample.classes)
        assert np.array_equal(kept.ignored, sample.ignored)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ZooError, match="delete the file to draw them again"):
        read_samples(file)


def measured(name: str, cost: int, ap50: float) -> Measured:
    return Measured(name, 96, cost, ap50, ap50 / 3, ap50)


def test_the_front_leaves_out_what_costs_more_for_nothing() -> None:
    points = [
        measured("d", 40, 0.5),
        measured("c", 30, 0.3 + LEAST_GAIN / 2),
        measured("b", 20, 0.29),
        measured("a", 10, 0.3),
    ]
    assert [variant_name(one) for one in front(points)] == ["a-96", "d-96"]


def test_drawing_and_planning_need_no_torch() -> None:
    code = "import sys, moonjelly.training.zoo, moonjelly.training.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_shipped_zoo_is_what_the_recipe_makes(root: Path) -> None:
    zoo = load_zoo(root / "profiles" / "synthetic")
    zoo.verify()
    assert zoo.classes == CLASSES
    assert len(zoo.variants) >= 8
    profile = zoo.profile("cpu")
    assert profile.max_batch == 12
    assert profile.accuracy[0] < 0.3
    assert profile.accuracy[-1] > 0.75
    for before, after in zip(profile.accuracy, profile.accuracy[1:], strict=False):
        assert after >= before + LEAST_GAIN / 2
    sizes = {model: max(v.input_size for v in zoo.variants if v.model == model) for model in zoo.entries}
    for architecture in ARCHITECTURES:
        source = zoo.source(architecture.name)
        assert source.definition == definition(architecture, sizes[architecture.name])
        config = parse_cfg(source.definition)
        decode_weights(config, source.weights)
    facts = json.loads((root / "profiles" / "synthetic" / "training.json").read_text(encoding="utf-8"))
    assert facts["steps"] == {model.architecture.name: model.steps for model in full_recipe(facts["seed"]).models}
