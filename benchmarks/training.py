"""What does a training step cost beside its convolutions? Processor time against the bare convolutions of the same run.

A step is all that ``moonjelly zoo train`` does for one batch: draw it, forward, loss, backward, update, average. The
baseline runs the convolutions of the same network alone, forward and backward, on noise of the shapes that they see.
Beside them: the same step on a batch that lies channels last in memory. All are measured in turns, on one thread.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from moonjelly.inference.onnx_runtime import cpu_name
from moonjelly.models.cfg import parse_cfg
from moonjelly.models.darknet import DarknetNetwork, random_network
from moonjelly.models.train import DetectorTrainer, TrainOptions
from moonjelly.training.architectures import definition
from moonjelly.training.batches import draw_batch
from moonjelly.training.recipes import ModelRecipe, full_recipe
from moonjelly.training.samples import Sample, SampleOptions, draw_samples

MOST = {"nano": 5.0, "small": 5.0, "medium": 4.0, "large": 4.0}
"""Times what the convolutions take, at the largest size taught: the smaller the network, the more the rest weighs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"{cpu_name()}, Python {platform.python_version()}, torch {torch.__version__}")
    samples = draw_samples(SampleOptions(first_seed=7, scenes=8, frames=4, varied_mix=True))
    return max(0 if holds(model, samples, options.rounds) else 1 for model in full_recipe(0).models)


def holds(model: ModelRecipe, samples: list[Sample], rounds: int) -> bool:
    """Measure one model and say whether it keeps its bar."""
    name, size = model.architecture.name, max(model.teach)
    steps = {
        "convolutions": _convolutions(_network(model), model.batch, size),
        "step": _step(model, samples, size, torch.contiguous_format),
        "step, channels last": _step(model, samples, size, torch.channels_last),
    }
    medians = _in_turns_ms(steps, rounds)
    ratio = medians["step"] / medians["convolutions"]
    verdict = "holds" if ratio <= MOST[name] else "MISSED"
    print(f"{name}-{size}, batch {model.batch}: {', '.join(f'{key} {value:.1f} ms' for key, value in medians.items())}")
    print(f"  {ratio:.2f} x its convolutions (at most {MOST[name]} x: {verdict})")
    return ratio <= MOST[name]


def _network(model: ModelRecipe) -> DarknetNetwork:
    config = parse_cfg(definition(model.architecture, max(model.teach)))
    return random_network(config, torch.Generator().manual_seed(0))


def _step(model: ModelRecipe, samples: list[Sample], size: int, layout: torch.memory_format) -> Callable[[], object]:
    trainer = DetectorTrainer(_network(model), TrainOptions(model.steps, model.learning_rate))

    def step() -> None:
        images, targets = draw_batch(samples, 0, trainer.step, model.batch, (size,))
        trainer.train_step(images.contiguous(memory_format=layout), targets)

    return step


def _convolutions(network: DarknetNetwork, batch: int, size: int) -> Callable[[], object]:
    """Each convolution of ``network`` forward and backward, on noise; the first has no use for its input's gradient."""
    runs: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    for number, block in enumerate(network.blocks()):
        layer = block.section
        side = size // network.config.shapes[layer.number].stride
        flow = torch.randn(batch, layer.in_channels, side * layer.stride, side * layer.stride)
        flow = flow.contiguous(memory_format=torch.channels_last).requires_grad_(number > 0)
        answer = torch.randn(batch, layer.filters, side, side).contiguous(memory_format=torch.channels_last)
        runs.append((block.conv, flow, answer))
    return partial(_run, runs)


def _run(runs: list[tuple[nn.Conv2d, Tensor, Tensor]]) -> None:
    for convolution, flow, answer in runs:
        inputs = [convolution.weight, *([flow] if flow.requires_grad else [])]
        torch.autograd.grad(convolution(flow), inputs, answer)


def _in_turns_ms(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor time of each, the first two rounds left out."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            began = time.process_time_ns()
            step()
            taken[name].append((time.process_time_ns() - began) / 1e6)
    return {name: float(np.median(values[2:])) for name, values in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
