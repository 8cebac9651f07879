"""What training the ``synthetic`` zoo takes: which tasks in which order, which variants are worth a place, the zoo.

Tasks run in processes, which are for the command line to start (``cli.training``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from moonjelly import profiles
from moonjelly.errors import ZooError
from moonjelly.scenes import CLASSES
from moonjelly.training.architectures import definition
from moonjelly.training.recipes import Recipe, full_recipe, part_names, quick_recipe
from moonjelly.training.store import Measured, TrainingFolder, make_plan, write_whole
from moonjelly.training.worker import Task

NAME = "synthetic"
WORK_FOLDER = "training"
"""Folder within the zoo for what is unfinished; taken away at the end."""
LEAST_GAIN = 0.004
"""A dearer variant must be more accurate by so much (AP at IoU 0.5) to be worth a place."""


@dataclass(frozen=True, slots=True)
class ZooTraining:
    """A training that has claimed its folder; whoever started it runs the tasks, stage after stage.

    Attributes:
        out: directory of the zoo.
        seed: of scenes, first weights and batches.
        recipe: what is trained.
        folder: where finished tasks are kept.
        stages: tasks that may run beside one another; a stage needs all of the one before.
    """

    out: Path
    seed: int
    recipe: Recipe
    folder: TrainingFolder
    stages: tuple[tuple[Task, ...], ...]


def begin_training(out: Path, *, seed: int = 0, quick: bool = False) -> ZooTraining:
    """Claim ``out`` for a training, or go on with one that was interrupted there.

    Args:
        out: directory of the zoo; made if need be.
        seed: of scenes, first weights and batches.
        quick: hardly train: to try the tools.

    Raises:
        ZooError: ``out`` holds something else.
    """
    recipe = quick_recipe(seed) if quick else full_recipe(seed)
    folder = TrainingFolder(out / WORK_FOLDER)
    if (out / "zoo.toml").exists() and not folder.directory.exists():
        raise ZooError(f"{out} holds a finished zoo; choose another --out, or delete it to train anew")
    foreign = [] if folder.directory.exists() or not out.exists() else sorted(path.name for path in out.iterdir())
    if foreign:
        raise ZooError(
            f"{out} holds {foreign[0]}, which is no training's; choose a new or an empty folder as --out: "
            "what is there would be mixed with the zoo"
        )
    folder.claim(make_plan(recipe, seed, quick))
    base = Task(str(folder.directory), seed, quick)
    draws = tuple(msgspec.structs.replace(base, draw=part) for part in part_names(recipe))
    # The largest first: the smaller ones fill the time that the other processes have left.
    models = tuple(msgspec.structs.replace(base, model=model.architecture.name) for model in reversed(recipe.models))
    return ZooTraining(out, seed, recipe, folder, (draws, models))


def finish_training(training: ZooTraining) -> tuple[Measured, ...]:
    """Write the zoo once all tasks are done; the variants in the zoo's order.

    Until :func:`close_training` the same training still goes on from here: what it did last is done again.
    """
    recipe, folder = training.recipe, training.folder
    measured = [one for model in recipe.models for one in folder.read_measured(model.architecture.name)]
    chosen = front(measured)
    _write_zoo(training, chosen)
    return chosen


def close_training(training: ZooTraining) -> None:
    """Take away what was kept for going on: the zoo is finished."""
    shutil.rmtree(training.folder.directory)


def front(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """The variants worth serving: each dearer than the one before and more accurate by :data:`LEAST_GAIN`."""
    chosen: list[Measured] = []
    for one in sorted(measured, key=lambda one: (one.multiply_adds, -one.ap50)):
        if not chosen or one.ap50 >= chosen[-1].ap50 + LEAST_GAIN:
            chosen.append(one)
    return tuple(chosen)


def variant_name(measured: Measured) -> str:
    """Name of a variant of this zoo."""
    return f"{measured.model}-{measured.input_size}"


def _write_zoo(training: ZooTraining, chosen: Sequence[Measured]) -> None:
    out, recipe = training.out, training.recipe
    used = {one.model for one in chosen}
    lines = ["format = 1", f'name = "{NAME}"', f"classes = {msgspec.json.encode(CLASSES).decode()}"]
    lines += ['profile_key = "variant"', ""]
    for model in recipe.models:
        name = model.architecture.name
        if name not in used:
            continue
        weights = training.folder.weights(name).read_bytes()
        largest = max(one.input_size for one in chosen if one.model == name)
        write_whole(out / f"{name}.cfg", definition(model.architecture, largest).encode())
        write_whole(out / f"{name}.weights", weights)
        lines += [f"[models.{name}]", f'definition = "{name}.cfg"', f'weights = "{name}.weights"', ""]
    for one in chosen:
        lines += ["[[variants]]", f'name = "{variant_name(one)}"', f'model = "{one.model}"']
        lines += [f"input_size = {one.input_size}", ""]
    profiles.write_accuracy(out / "accuracy.txt", {variant_name(one): one.ap50 for one in chosen})
    write_whole(out / "training.json", msgspec.json.format(msgspec.json.encode(_facts(recipe, chosen, training.seed))))
    write_whole(out / "zoo.toml", "\n".join(lines).encode())


def _facts(recipe: Recipe, chosen: Sequence[Measured], seed: int) -> dict[str, object]:
    """How the zoo was made and what was measured."""
    return {
        "seed": seed,
        "torch": version("torch"),
        "pictures": sum(part.scenes * part.frames for part in recipe.parts),
        "held_out_pictures": recipe.held_out.scenes * recipe.held_out.frames,
        "steps": {model.architecture.name: model.steps for model in recipe.models},
        "batch": {model.architecture.name: model.batch for model in recipe.models},
        "variants": list(chosen),
    }
