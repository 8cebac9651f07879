"""What the simulation's commands leave beside their rows: a table, a figure, ``summary.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich import box
from rich.table import Table

from cli.machine import machine, versions
from cli.simulate.sittings import INTERRUPTED_STATUS, SUMMARY_FILE, Collection, console
from moonjelly.summary import write_json
from moonjelly.telemetry import SCHEMA_VERSION, Row
from plots import style
from simulation.compare import Size


def figure_files(name: str) -> tuple[str, ...]:
    """What :func:`finish` makes of a figure's name."""
    return tuple(f"{name}.{kind}" for kind in style.KINDS)


def finish(out: Path, found: Collection[Row], content: dict[str, Any], figure: Any, name: str) -> None:
    """Write figure and summary.

    Raises:
        typer.Exit: the measurement was stopped.
    """
    style.save(figure, out / name)
    write_summary(out, content | {"complete": not found.stopped, "sittings": found.sittings()})
    if found.stopped:
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
