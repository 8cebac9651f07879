"""Training and measuring one model, within a worker process."""

from __future__ import annotations

import msgspec
import torch

from moonjelly.models.cfg import parse_cfg
from moonjelly.models.darknet import load_network, random_network, save_weights
from moonjelly.models.train import DetectorTrainer, TrainOptions
from moonjelly.training.architectures import definition, multiply_adds
from moonjelly.training.batches import draw_batch
from moonjelly.training.evaluation import evaluate
from moonjelly.training.recipes import HELD_OUT, ModelRecipe, Recipe, part_names
from moonjelly.training.store import Measured, Progress, Report, TrainingFolder, read_samples, write_whole

SAVE_EVERY = 100
"""Steps between two saved states."""


def train(folder: TrainingFolder, recipe: Recipe, model: ModelRecipe, seed: int, report: Report) -> None:
    """Train one model, going on from its saved state."""
    name = model.architecture.name
    if folder.weights(name).exists():
        return
    # One thread: the order of additions, hence the result, must not depend on how many cores there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Fresh tensors are written whole before they are read; filling them first takes a twelfth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    samples = [sample for part in part_names(recipe)[:-1] for sample in read_samples(folder.samples(part))]
    config = parse_cfg(definition(model.architecture, model.teach[0]))
    network = random_network(config, torch.Generator().manual_seed(seed))
    trainer = DetectorTrainer(network, TrainOptions(model.steps, model.learning_rate))
    if folder.state(name).exists():
        trainer.restore(folder.state(name).read_bytes())
    losses: list[float] = []
    while trainer.step < model.steps:
        images, targets = draw_batch(samples, seed, trainer.step, model.batch, model.teach)
        losses.append(trainer.train_step(images, targets).total.item())
        if trainer.step % SAVE_EVERY == 0 or trainer.step == model.steps:
            write_whole(folder.state(name), trainer.save())
            report(Progress(f"training {name}", trainer.step, model.steps, sum(losses) / len(losses)))
            losses.clear()
    write_whole(folder.weights(name), save_weights(trainer.averaged(), seen=model.steps * model.batch))
    folder.state(name).unlink()


def measure(folder: TrainingFolder, model: ModelRecipe, report: Report) -> None:
    """Measure a trained model at all its input sizes."""
    name = model.architecture.name
    if folder.measured(name).exists():
        return
    torch.set_num_threads(1)
    samples = read_samples(folder.samples(HELD_OUT))
    config = parse_cfg(definition(model.architecture, model.teach[0]))
    network = load_network(config, folder.weights(name).read_bytes()).fuse()
    results = []
    for number, size in enumerate(model.serve):
        before = number * len(samples)

        def seen(done: int, before: int = before) -> None:
            report(Progress(f"measuring {name}", before + done, len(samples) * len(model.serve)))

        precision, f1 = evaluate(network, samples, size, seen)
        results.append(Measured(name, size, multiply_adds(config, size), precision.ap50, precision.ap, f1))
    write_whole(folder.measured(name), msgspec.json.encode(results))
