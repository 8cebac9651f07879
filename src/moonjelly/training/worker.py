"""One task of a training in a process of its own: ``python -m moonjelly.training.worker TASK``.

``TASK`` is JSON. The process runs on one thread, says how far it is on its standard output, one JSON object a line, and
ends when nobody reads that any more. A task whose result is there already does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import msgspec

from moonjelly.errors import MoonjellyError
from moonjelly.training.recipes import HELD_OUT, full_recipe, quick_recipe
from moonjelly.training.samples import SampleOptions, draw_samples
from moonjelly.training.store import Progress, Report, TrainingFolder, write_samples


class Task(msgspec.Struct, frozen=True):
    """What a worker is to do.

    Attributes:
        folder: of the training.
        seed: of the training.
        quick: which recipe.
        draw: name of the part of pictures to draw, or ``None``.
        model: name of the model to train and measure, or ``None``.
    """

    folder: str
    seed: int
    quick: bool
    draw: str | None = None
    model: str | None = None


def run(task: Task, report: Report) -> None:
    """Do a task.

    Raises:
        MoonjellyError: it cannot be done.
    """
    folder = TrainingFolder(Path(task.folder))
    recipe = quick_recipe(task.seed) if task.quick else full_recipe(task.seed)
    if task.draw is not None:
        options = recipe.held_out if task.draw == HELD_OUT else recipe.parts[int(task.draw)]
        draw(folder, task.draw, options, report)
    if task.model is not None:
        # Torch takes seconds to import, and drawing needs none of it.
        from moonjelly.training.learning import measure, train

        model = next(model for model in recipe.models if model.architecture.name == task.model)
        train(folder, recipe, model, task.seed, report)
        measure(folder, model, report)


def draw(folder: TrainingFolder, part: str, options: SampleOptions, report: Report) -> None:
    """Draw one part of the pictures."""
    file = folder.samples(part)
    if not file.exists():
        samples = draw_samples(options, lambda done, total: report(Progress(f"drawing {part}", done, total)))
        write_samples(file, samples)


def _say(progress: Progress) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Do the task that the command line names; its exit status."""
    cv2.setNumThreads(1)
    try:
        run(msgspec.json.decode(sys.argv[1], type=Task), _say)
    except BrokenPipeError:
        return 1
    except MoonjellyError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
