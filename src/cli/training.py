"""Trains a zoo: runs the tasks of a training in processes of their own, some at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import msgspec

from moonjelly.errors import ModelError
from moonjelly.training.store import Measured, Progress
from moonjelly.training.worker import Task
from moonjelly.training.zoo import begin_training, close_training, finish_training

ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""Keeps glibc from giving large tensors back to the system in every step and asking for them again: a twentieth of the
time of the largest model. Other allocators do not read it."""

TaskReport = Callable[[str, Progress], None]
"""Told the task's name and how far it is; called by one thread at a time."""


def train_zoo(
    out: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    jobs: int = 2,
    report: TaskReport | None = None,
    profile: Callable[[], None] = lambda: None,
) -> tuple[Measured, ...]:
    """Train a whole zoo and write it to ``out``.

    An interrupted training goes on where it was when it is called again with the same ``out``, ``seed`` and ``quick``;
    a finished one is refused. The same seed gives the same weights on the same build of torch and kind of processor.

    Args:
        out: directory of the zoo; made if need be.
        seed: of scenes, first weights and batches.
        quick: hardly train: to try the tools.
        jobs: processes at a time, of one thread each.
        report: told about progress.
        profile: measures the latencies of what is in ``out`` then; part of what an interrupted training goes on with.

    Returns:
        The variants of the zoo, in its order.

    Raises:
        ZooError: ``out`` holds something else.
        ModelError: a task failed.
    """
    training = begin_training(out, seed=seed, quick=quick)
    for stage in training.stages:
        _run_all(stage, jobs, report)
    chosen = finish_training(training)
    profile()
    close_training(training)
    return chosen


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
            pipe, environment = subprocess.PIPE, {**ALLOCATION, **os.environ}
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment)
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
