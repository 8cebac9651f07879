"""What the simulation's commands leave: rows as they come, a table, a figure, ``summary.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Generic

import pandas as pd
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.machine import machine, versions
from cli.terminal import make_console
from moonjelly.interrupts import interruptible
from moonjelly.summary import write_json
from moonjelly.telemetry import SCHEMA_VERSION, CsvLog, Row, set_aside
from plots import style
from simulation.compare import Size

INTERRUPTED_STATUS = 130
SUMMARY_FILE = "summary.json"

console = make_console()


class Collection(Generic[Row]):
    """Rows of a long measurement: logged as they come, counted on a progress bar, kept for the table.

    Args:
        log: of the rows.
        progress: shown.
        noun: what is counted.
        total: how many there will be.

    Attributes:
        rows: so far.
        stopped: ended by Ctrl-C before all were there.
    """

    def __init__(self, log: CsvLog[Row], progress: Progress, noun: str, total: int) -> None:
        self._log, self._progress, self._noun, self._total = log, progress, noun, total
        self._task = progress.add_task(noun, total=total)
        self._done = 0
        self.rows: list[Row] = []
        self.stopped = False

    def begin(self, text: str) -> None:
        """Say what is measured now."""
        self._progress.update(self._task, description=text)

    def add(self, rows: Sequence[Row]) -> None:
        """Take in the rows of one thing that is counted; none: it was passed over."""
        self._log.write_all(rows)
        self.rows.extend(rows)
        self._done += 1
        self._progress.advance(self._task)

    def explain(self) -> None:
        """Say what is missing of a measurement that was stopped.

        Raises:
            typer.Exit: there is nothing to show.
        """
        if self.stopped:
            console.print(f"stopped after {self._done} of {self._total} {self._noun}")
            if not self.rows:
                raise typer.Exit(INTERRUPTED_STATUS)


@contextmanager
def collecting(path: Path, row_type: type[Row], noun: str, total: int) -> Iterator[Collection[Row]]:
    """A collection whose rows go to the CSV file at ``path``.

    Ctrl-C (and SIGTERM, SIGHUP) within the block ends it, so that what has been measured is shown and summed up.
    """
    with closing(CsvLog(path, row_type)) as log, _progress() as progress:
        collection = Collection(log, progress, noun, total)
        try:
            with interruptible():
                yield collection
        except KeyboardInterrupt:
            collection.stopped = True


def keep_earlier(out: Path, *names: str) -> None:
    """Move the results of an earlier command in this place aside, and say so.

    Args:
        out: where results go.
        names: of its files and folders, ``summary.json`` apart.
    """
    kept = set_aside(out, (*names, SUMMARY_FILE))
    if kept is not None:
        console.print(f"earlier results: {kept}")


def figure_files(name: str) -> tuple[str, ...]:
    """What :func:`finish` makes of a figure's name."""
    return tuple(f"{name}.{kind}" for kind in style.KINDS)


def finish(out: Path, content: dict[str, Any], figure: Any, name: str, stopped: bool) -> None:
    """Write figure and summary.

    Raises:
        typer.Exit: the measurement was stopped.
    """
    style.save(figure, out / name)
    write_summary(out, content | {"complete": not stopped})
    if stopped:
        raise typer.Exit(INTERRUPTED_STATUS)


def write_summary(out: Path, content: dict[str, Any]) -> None:
    """Write ``summary.json`` and say where."""
    about = {"schema_version": SCHEMA_VERSION, "versions": versions(), "machine": machine()}
    write_json(out / SUMMARY_FILE, content | about)
    console.print(f"written: {out}")


def make_table(title: str, columns: Iterable[str]) -> Table:
    """Without rows; the first two columns are words, the others numbers."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < 2 else "right", no_wrap=index > 1)
    return made


def frame_of(rows: Sequence[Any]) -> pd.DataFrame:
    """Rows as a figure takes them."""
    return pd.DataFrame([dataclasses.asdict(row) for row in rows])


def plain(row: Any) -> dict[str, Any]:
    """A row as JSON takes it."""
    return {name: str(value) if isinstance(value, Size) else value for name, value in dataclasses.asdict(row).items()}


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
