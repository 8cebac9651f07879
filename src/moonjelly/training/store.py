"""The folder in which a training keeps what it has finished, so that it can be interrupted at any moment.

Files appear whole (written beside, synced, renamed): what is there is done and is not done again.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from moonjelly.errors import ZooError
from moonjelly.training.architectures import definition
from moonjelly.training.recipes import Recipe
from moonjelly.training.samples import Sample

FORMAT = 2
"""Of the files; a training that was begun in another format is not gone on with."""


class Plan(msgspec.Struct, frozen=True):
    """What a folder holds: the training that it belongs to."""

    format: int
    seed: int
    quick: bool
    recipe: str
    """SHA-256 of the recipe and of the networks it names."""


class Measured(msgspec.Struct, frozen=True):
    """Accuracy of one model at one input size on the held-out scenes."""

    model: str
    input_size: int
    multiply_adds: int
    ap50: float
    ap: float
    f1: float


class Progress(msgspec.Struct, frozen=True):
    """How far a task is.

    Attributes:
        doing: what.
        done: of ``total``.
        total: steps in all.
        loss: mean of the last steps while training, else ``None``.
    """

    doing: str
    done: int
    total: int
    loss: float | None = None


Report = Callable[[Progress], None]


def make_plan(recipe: Recipe, seed: int, quick: bool) -> Plan:
    """The plan of a training."""
    digest = hashlib.sha256(repr(recipe).encode())
    for model in recipe.models:
        digest.update(definition(model.architecture, model.teach[0]).encode())
    return Plan(FORMAT, seed, quick, digest.hexdigest())


class TrainingFolder:
    """Paths and formats of a training's folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def claim(self, plan: Plan) -> None:
        """Make the folder, or recognise it as the same training's.

        Raises:
            ZooError: it belongs to another training, or to somebody else.
        """
        file = self.directory / "plan.json"
        if file.exists():
            try:
                found = msgspec.json.decode(file.read_bytes(), type=Plan)
            except msgspec.MsgspecError as fault:
                raise ZooError(f"{file} is not readable ({fault}); delete {self.directory} to start anew") from fault
            if found.format != plan.format:
                raise ZooError(
                    f"{self.directory} holds what another version has begun (format {found.format}, not "
                    f"{plan.format}); choose another --out, or delete that folder to start anew"
                )
            if found != plan:
                raise ZooError(
                    f"{self.directory} holds another training (seed {found.seed}, quick {found.quick}); "
                    "choose another --out, or delete that folder to start anew"
                )
            return
        begun = f".{file.name}."  # a claim that was cut off
        if self.directory.exists() and any(not path.name.startswith(begun) for path in self.directory.iterdir()):
            raise ZooError(
                f"{self.directory} holds files that are no training's; choose another --out, or move them away"
            )
        write_whole(file, msgspec.json.encode(plan))

    def samples(self, part: str) -> Path:
        """Pictures of one part."""
        return self.directory / f"samples-{part}.npz"

    def state(self, model: str) -> Path:
        """Where the training of a model stands."""
        return self.directory / f"{model}.state.npz"

    def weights(self, model: str) -> Path:
        """Finished weights of a model."""
        return self.directory / f"{model}.weights"

    def measured(self, model: str) -> Path:
        """Accuracies of a finished model."""
        return self.directory / f"{model}.json"

    def read_measured(self, model: str) -> list[Measured]:
        """Accuracies of a finished model at each of its input sizes."""
        return msgspec.json.decode(self.measured(model).read_bytes(), type=list[Measured])


def write_whole(file: Path, data: bytes) -> None:
    """Write so that a reader, also one after a crash, sees all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    beside.replace(file)


def write_samples(file: Path, samples: Sequence[Sample]) -> None:
    """Keep pictures and their truth in one ``.npz`` file."""
    sink = io.BytesIO()
    np.savez(
        sink,
        jpegs=np.frombuffer(b"".join(sample.jpeg for sample in samples), np.uint8),
        lengths=np.asarray([len(sample.jpeg) for sample in samples]),
        counts=np.asarray([len(sample.classes) for sample in samples]),
        boxes=np.concatenate([sample.boxes for sample in samples]),
        classes=np.concatenate([sample.classes for sample in samples]),
        ignored=np.concatenate([sample.ignored for sample in samples]),
    )
    write_whole(file, sink.getvalue())


def read_samples(file: Path) -> list[Sample]:
    """The inverse of :func:`write_samples`.

    Raises:
        ZooError: the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
            arrays = dict(content)
        jpegs = np.split(arrays["jpegs"], np.cumsum(arrays["lengths"])[:-1])
        ends = np.cumsum(arrays["counts"])[:-1]
        parts = (np.split(arrays[name], ends) for name in ("boxes", "classes", "ignored"))
        return [Sample(jpeg.tobytes(), *truth) for jpeg, *truth in zip(jpegs, *parts, strict=True)]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as fault:
        raise ZooError(f"pictures in {file} cannot be read: {fault}; delete the file to draw them again") from fault
