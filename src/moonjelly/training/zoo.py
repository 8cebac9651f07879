"""Trains the ``synthetic`` zoo: draws scenes, trains every model, measures every variant, writes the zoo."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path

import msgspec

from moonjelly import profiles
from moonjelly.errors import ModelError, ZooError
from moonjelly.scenes import CLASSES
from moonjelly.training.architectures import definition
from moonjelly.training.recipes import Recipe, full_recipe, part_names, quick_recipe
from moonjelly.training.store import Measured, Progress, TrainingFolder, make_plan, write_whole
from moonjelly.training.worker import Task

NAME = "synthetic"
WORK_FOLDER = "training"
"""Folder within the zoo for what is unfinished; taken away at the end."""
LEAST_GAIN = 0.004
"""A dearer variant must be more accurate by so much (AP at IoU 0.5) to be worth a place."""

TaskReport = Callable[[str, Progress], None]
"""Told the task's name and how far it is; called by one thread at a time."""


def train_zoo(
    out: Path, *, seed: int = 0, quick: bool = False, jobs: int = 2, report: TaskReport | None = None
) -> tuple[Measured, ...]:
    """Train a whole zoo and write it to ``out``.

    An interrupted training goes on where it was when it is called again with the same ``out``, ``seed`` and ``quick``;
    a finished one is only read. The same seed gives the same weights on the same build of torch and kind of processor.

    Args:
        out: directory of the zoo; made if need be.
        seed: of scenes, first weights and batches.
        quick: hardly train: to try the tools.
        jobs: processes at a time, of one thread each.
        report: told about progress.

    Returns:
        The variants of the zoo, in its order.

    Raises:
        ZooError: ``out`` holds something else.
        ModelError: a task failed.
    """
    recipe = quick_recipe(seed) if quick else full_recipe(seed)
    folder = TrainingFolder(out / WORK_FOLDER)
    plan = make_plan(recipe, seed, quick)
    if (out / "zoo.toml").exists() and not folder.directory.exists():
        raise ZooError(f"{out} holds a finished zoo; choose another --out, or delete it to train anew")
    folder.claim(plan)
    base = Task(str(folder.directory), seed, quick)
    draws = [msgspec.structs.replace(base, draw=part) for part in part_names(recipe)]
    _run_all(draws, jobs, report)
    # The largest first: the smaller ones fill the time that the other processes have left.
    models = [msgspec.structs.replace(base, model=model.architecture.name) for model in reversed(recipe.models)]
    _run_all(models, jobs, report)
    measured = [one for model in recipe.models for one in folder.read_measured(model.architecture.name)]
    chosen = front(measured)
    _write_zoo(out, recipe, folder, chosen, seed)
    shutil.rmtree(folder.directory)
    return chosen


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


def _run_all(tasks: Sequence[Task], jobs: int, report: TaskReport | None) -> None:
    """Run tasks in processes of their own; the first failure ends the others."""
    running = _Running(report)
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = [pool.submit(running.run, task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and future.exception() is None for future in futures):
                for future in futures:
                    future.cancel()
                running.stop()
    for future in futures:
        if not future.cancelled():
            future.result()


class _Running:
    """The processes of one stage."""

    def __init__(self, report: TaskReport | None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def run(self, task: Task) -> None:
        """Run one task to its end and pass on what it says.

        Raises:
            ModelError: it failed.
        """
        name = task.model or f"pictures {task.draw}"
        command = [sys.executable, "-m", "moonjelly.training.worker", msgspec.json.encode(task).decode()]
        with self._lock:
            if self._stopped:
                return
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self._processes.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            for line in process.stdout:
                self._pass_on(name, msgspec.json.decode(line, type=Progress))
            complaint = process.stderr.read().decode(errors="replace").strip()
        if process.returncode and not self._stopped:
            last = complaint.splitlines()[-1] if complaint else "it gave no reason"
            raise ModelError(f"training task '{name}' ended with status {process.returncode}: {last}")

    def stop(self) -> None:
        """End all processes; what they have saved stays."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.terminate()
        for process in self._processes:
            process.wait()

    def _pass_on(self, name: str, progress: Progress) -> None:
        with self._lock:
            if self._report is not None and not self._stopped:
                self._report(name, progress)


def _write_zoo(out: Path, recipe: Recipe, folder: TrainingFolder, chosen: Sequence[Measured], seed: int) -> None:
    used = {one.model for one in chosen}
    lines = ["format = 1", f'name = "{NAME}"', f"classes = {msgspec.json.encode(CLASSES).decode()}"]
    lines += ['profile_key = "variant"', ""]
    for model in recipe.models:
        name = model.architecture.name
        if name not in used:
            continue
        weights = folder.weights(name).read_bytes()
        largest = max(one.input_size for one in chosen if one.model == name)
        write_whole(out / f"{name}.cfg", definition(model.architecture, largest).encode())
        write_whole(out / f"{name}.weights", weights)
        lines += [f"[models.{name}]", f'definition = "{name}.cfg"', f'weights = "{name}.weights"', ""]
    for one in chosen:
        lines += ["[[variants]]", f'name = "{variant_name(one)}"', f'model = "{one.model}"']
        lines += [f"input_size = {one.input_size}", ""]
    profiles.write_accuracy(out / "accuracy.txt", {variant_name(one): one.ap50 for one in chosen})
    write_whole(out / "training.json", msgspec.json.format(msgspec.json.encode(_facts(recipe, chosen, seed))))
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
