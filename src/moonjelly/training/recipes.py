"""What is trained, for how long, and which variants are made of it."""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.training.architectures import ARCHITECTURES, Architecture
from moonjelly.training.samples import SampleOptions

TRAINING_SEED = 1_000_000
"""Scenes to learn from count from here (plus the training's own seed in millions)."""
HELD_OUT_SEED = 900_000_000
"""Scenes that accuracy is measured on; the same for every training, so that figures compare."""
HELD_OUT = "held-out"
"""Name of their part."""


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """How one model is trained.

    Attributes:
        architecture: what it is.
        steps: batches.
        batch: pictures per batch.
        learning_rate: at its highest.
        teach: input sizes that it sees, one per batch by chance.
        serve: input sizes that may become variants.
    """

    architecture: Architecture
    steps: int
    batch: int
    learning_rate: float
    teach: tuple[int, ...]
    serve: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a zoo is trained.

    Attributes:
        models: from the smallest to the largest.
        parts: of the pictures to learn from, drawn apart from one another.
        held_out: pictures that accuracy is measured on.
    """

    models: tuple[ModelRecipe, ...]
    parts: tuple[SampleOptions, ...]
    held_out: SampleOptions


def full_recipe(seed: int) -> Recipe:
    """The recipe of the shipped zoo: about half an hour of processor time in all."""
    nano, small, medium, large = ARCHITECTURES
    return Recipe(
        models=(
            ModelRecipe(nano, 6000, 8, 4e-3, (96, 128, 160), (96, 128, 160)),
            ModelRecipe(small, 8500, 8, 4e-3, (128, 160, 192, 224), (160, 192, 224)),
            ModelRecipe(medium, 9500, 8, 4e-3, (160, 192, 224, 256, 288), (192, 224, 256)),
            ModelRecipe(large, 5600, 8, 4e-3, (224, 288, 352), (288, 352)),
        ),
        parts=tuple(
            SampleOptions(TRAINING_SEED * (seed + 1) + 100 * part, 100, 10, varied_mix=True) for part in range(4)
        ),
        held_out=SampleOptions(HELD_OUT_SEED, 60, 4, varied_mix=False),
    )


def quick_recipe(seed: int) -> Recipe:
    """Everything once and hardly trained: to try the tools, a minute or less."""
    nano, small = ARCHITECTURES[:2]
    return Recipe(
        models=(
            ModelRecipe(nano, 12, 4, 6e-3, (96,), (64, 96)),
            ModelRecipe(small, 8, 4, 5e-3, (96,), (128,)),
        ),
        parts=(SampleOptions(TRAINING_SEED * (seed + 1), 4, 3, varied_mix=True),),
        held_out=SampleOptions(HELD_OUT_SEED, 3, 2, varied_mix=False),
    )


def part_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the parts of pictures, the held-out one last."""
    return (*(str(number) for number in range(len(recipe.parts))), HELD_OUT)
