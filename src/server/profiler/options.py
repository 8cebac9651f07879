"""What a profiling run is told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from moonjelly.config import Options

Metric = Literal["ap", "ap50"]


class ProfilerOptions(Options):
    """Options of the profiler; defaults are Jellyfish's.

    Attributes:
        zoo: name or directory.
        out: where ``<kind>/`` is written; ``None``: ``measured/`` in the zoo's directory, which its readers prefer.
        runtime: ``auto``, ``torch``, ``onnx`` or ``simulated``.
        kind: device kind to write; with ``simulated`` the kind to follow. ``None``: what the device says.
        num_gpus: devices that share the work; without a GPU these are CPU processes.
        num_dnns: profile the first so many variants of the zoo; ``None``: all.
        max_batch: batches 1..``max_batch``.
        num_batches: batch runs per (variant, batch size), warm-up included.
        warmup: first rows that readers leave out.
        limit_s: stop a (variant, batch size) early after so many seconds; 0: never. Rows are never fewer than 5 more
            than the warm-up.
        threads: of the runtime on a CPU.
        clock: ``wall``: what serving feels, for a machine that does nothing else meanwhile. ``cpu``: the processor time
            of the device's process, which neighbours hardly change; for the CPU with one thread on a shared machine.
        seed: of the pictures that are shown.
        accuracy: ``accuracy.txt`` to take accuracies from, by variant key.
        coco: folder with ``instances.json`` and ``images/`` to measure average precision on.
        metric: ``ap``: COCO's mean over IoU 0.50 to 0.95; ``ap50``: at IoU 0.50.
        golden: variant whose detections on ``video`` are taken for true, for F1.
        video: file for ``golden``.
        frames: of ``video``, evenly spread.
    """

    zoo: str = "yolov4"
    out: Path | None = None
    runtime: Literal["auto", "torch", "onnx", "simulated"] = "auto"
    kind: str | None = None
    num_gpus: PositiveInt = 2
    num_dnns: PositiveInt | None = None
    max_batch: PositiveInt = 12
    num_batches: PositiveInt = 2000
    warmup: NonNegativeInt = 10
    limit_s: NonNegativeFloat = 0.0
    threads: PositiveInt = 1
    clock: Literal["wall", "cpu"] = "wall"
    seed: NonNegativeInt = 0
    accuracy: Path | None = None
    coco: Path | None = None
    metric: Metric = "ap"
    golden: str | None = None
    video: Path | None = None
    frames: PositiveInt = Field(default=100)
