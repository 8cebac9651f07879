"""A long measurement over as many sittings as it takes: the same command goes on with what is missing."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.machine import machine, versions
from cli.terminal import make_console
from moonjelly import folder_lock
from moonjelly.errors import SchemaError
from moonjelly.interrupts import interruptible
from moonjelly.summary import write_json
from moonjelly.telemetry import SCHEMA_VERSION, CsvLog, Row, read_record, read_rows, set_aside

INTERRUPTED_STATUS = 130
SUMMARY_FILE = "summary.json"
STUDY_FILE = "study.json"
LONGEST_CONDITION = 160
"""Characters; a longer one (a profile, a trace) is told by its digest."""
PACE_S = 3600.0
"""The time left is reckoned from what was done in the last hour: one solve may take minutes."""

console = make_console()


@dataclass(frozen=True)
class Measurement(Generic[Row]):
    """What is measured, and where it is kept.

    Attributes:
        out: its folder.
        table: name of the CSV file of its rows.
        row_type: of the rows.
        noun: what is counted.
        total: how many are counted when all is done.
        of: what a row belongs to.
        rows_each: rows of each.
        conditions: what must be the same, so that its rows can stand beside earlier ones; see :func:`conditions`.
        others: files and folders that it leaves beside.
    """

    out: Path
    table: str
    row_type: type[Row]
    noun: str
    total: int
    of: Callable[[Row], Hashable]
    rows_each: int
    conditions: Mapping[str, str]
    others: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Of the rows."""
        return self.out / self.table

    def count(self, rows: Iterable[Row]) -> int:
        """How many of what is counted they are of."""
        return len(set(map(self.of, rows)))


def conditions(command: str, options: Any, **more: object) -> dict[str, str]:
    """What a measurement depends on: its command and options, the programs' versions and the processor.

    Args:
        command: by which it is called.
        options: a dataclass.
        more: that the options only name.
    """
    told = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    words = {name: _words(value) for name, value in {**told, **more}.items()}
    about = {f"version of {name}": version for name, version in versions().items()}
    return {"command": command, **words, **about, "processor": str(machine()["processor"])}


def _words(value: object) -> str:
    text = repr(value)
    if len(text) <= LONGEST_CONDITION:
        return text
    return f"{text[: LONGEST_CONDITION // 4]}… (SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"


@dataclass(frozen=True, slots=True)
class Sitting:
    """One call of the command.

    Attributes:
        there: how many were there when it began.
        machine: that it ran on, and how busy it was.
    """

    there: int
    machine: Mapping[str, object]


class Collection(Generic[Row]):
    """Rows of a measurement: logged as they come, counted on a progress bar, kept for the table.

    Args:
        measurement: whose rows.
        log: of the rows.
        progress: shown.
        rows: of earlier sittings.
        sittings: this one is the last.

    Attributes:
        rows: so far, those of earlier sittings included.
        there: what these belong to.
        stopped: ended by Ctrl-C before all were there.
    """

    def __init__(
        self,
        measurement: Measurement[Row],
        log: CsvLog[Row],
        progress: Progress,
        rows: Sequence[Row],
        sittings: Sequence[Sitting],
    ) -> None:
        self._measurement, self._log, self._progress, self._sittings = measurement, log, progress, sittings
        self.rows = list(rows)
        self.there: frozenset[Any] = frozenset(map(measurement.of, rows))
        self.stopped = False
        self._done = len(self.there)
        self._total = measurement.total
        self._task = progress.add_task(measurement.noun, total=self._total, completed=self._done)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C (and SIGTERM, SIGHUP) within the block ends it, so that what has been measured is shown."""
        try:
            with self._progress, interruptible():
                yield
        except KeyboardInterrupt:
            self.stopped = True

    def begin(self, text: str) -> None:
        """Say what is measured now."""
        self._progress.update(self._task, description=text)

    def add(self, rows: Sequence[Row]) -> None:
        """Take in all rows of one thing that is counted."""
        self._log.write_all(rows)
        self.rows.extend(rows)
        self._done += 1
        self._progress.advance(self._task)

    def pass_over(self, count: int) -> None:
        """So many will not be measured at all."""
        self._total -= count
        self._progress.update(self._task, total=self._total)

    def explain(self) -> None:
        """Say what is missing of a measurement that was stopped, and when it was made in several sittings.

        Raises:
            typer.Exit: there is nothing to show.
        """
        noun = self._measurement.noun
        if self.stopped:
            console.print(f"stopped after {self._done} of {self._total} {noun}; the same command goes on from there")
            if not self.rows:
                raise typer.Exit(INTERRUPTED_STATUS)
        shares = [str(sitting["measured"]) for sitting in self.sittings()]
        if len(shares) > 1:
            console.print(
                f"measured in {len(shares)} sittings ({' + '.join(shares)} {noun}); each time is of its own sitting"
            )

    def sittings(self) -> list[dict[str, Any]]:
        """How many each sitting has measured, and on what; in the order of the rows."""
        ends = [*(sitting.there for sitting in self._sittings[1:]), self._done]
        told = [
            {"measured": end - sitting.there, "machine": dict(sitting.machine)}
            for sitting, end in zip(self._sittings, ends, strict=True)
        ]
        return [sitting for sitting in told if sitting["measured"]]


@contextmanager
def collecting(measurement: Measurement[Row]) -> Iterator[Collection[Row]]:
    """Rows of a measurement, beginning with those that an interrupted call of the same command has left.

    What another command has left, or the same one to its end, is moved aside. The folder is held meanwhile.

    Raises:
        MoonjellyError: another process measures into the same folder.
    """
    with folder_lock.held(measurement.out, "runs a simulation into"):
        rows, earlier = _go_on(measurement)
        there = measurement.count(rows)
        if there:
            console.print(f"{there} of {measurement.total} {measurement.noun} are there; going on with the others")
        sittings = [*earlier, Sitting(there, machine())]
        told = [dataclasses.asdict(sitting) for sitting in sittings]
        record = {"schema_version": SCHEMA_VERSION, "conditions": dict(measurement.conditions), "sittings": told}
        write_json(measurement.out / STUDY_FILE, record)
        with closing(CsvLog(measurement.path, measurement.row_type, resumed=bool(rows), exact=True)) as log:
            yield Collection(measurement, log, _progress(), rows, sittings)


def keep_earlier(out: Path, *names: str, why: str = "") -> None:
    """Move the results of an earlier command in this place aside, and say so.

    Args:
        out: where results go.
        names: of its files and folders, ``summary.json`` apart.
        why: they are not gone on with.
    """
    kept = set_aside(out, (*names, SUMMARY_FILE))
    if kept is not None:
        console.print(f"earlier results: {kept}{why and f' ({why})'}", soft_wrap=True)


def _go_on(measurement: Measurement[Row]) -> tuple[list[Row], list[Sitting]]:
    """Rows and sittings to go on with; else what there is is moved aside."""
    record, why = _record(measurement.out), ""
    if record:
        why = _difference(record.get("conditions", {}), measurement.conditions)
        if not why:
            try:
                sittings = [Sitting(**sitting) for sitting in record.get("sittings", ())]
                rows = _whole_rows(measurement)
                return rows, [sitting for sitting in sittings if sitting.there < measurement.count(rows)]
            except (ValueError, TypeError, csv.Error, OSError) as fault:
                why = f"they cannot be read: {fault}"
    keep_earlier(measurement.out, measurement.table, STUDY_FILE, *measurement.others, why=why)
    return [], []


def _record(out: Path) -> dict[str, Any]:
    """What an interrupted measurement says of itself; nothing of one that has reached its end."""
    ended = _read(out / SUMMARY_FILE).get("complete") is True
    return {} if ended else _read(out / STUDY_FILE)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_record(path)
    except (OSError, SchemaError):
        return {}


def _difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            return f"measured with {name} = {there.get(name)}, not {here.get(name)}"
    return ""


def _whole_rows(measurement: Measurement[Row]) -> list[Row]:
    """Rows of what has all of its own; a line that was torn off, and others of the same thing, leave the file.

    Raises:
        ValueError, TypeError, csv.Error: a line does not parse.
        OSError: there is no such file.
    """
    with closing(CsvLog(measurement.path, measurement.row_type, resumed=True, exact=True)):
        rows = list(read_rows(measurement.path, measurement.row_type))
    counts = Counter(map(measurement.of, rows))
    whole = [row for row in rows if counts[measurement.of(row)] == measurement.rows_each]
    if len(whole) < len(rows):
        beside = measurement.path.with_name(measurement.table + ".part")
        with closing(CsvLog(beside, measurement.row_type, exact=True)) as log:
            log.write_all(whole)
        beside.replace(measurement.path)
    return whole


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), speed_estimate_period=PACE_S)
