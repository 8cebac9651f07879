"""One dataclass per logged row: the schema of every CSV file (``docs/telemetry.md``).

Columns are a superset of Jellyfish's. Instants are nanoseconds on the monotonic clock of the host that writes the
row. A value that does not exist for a row is an empty cell.
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import json
import types
import typing
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from moonjelly.errors import SchemaError
from moonjelly.types import DEFAULT_GROUP, Outcome

SCHEMA_VERSION = 1
"""Of the CSV files, ``summary.json`` and ``client.json``; grows when a reader of the old one would misread the new."""
EARLIER = "earlier-"
"""Begins the name of a folder that holds an earlier run's files; a number follows."""


@dataclasses.dataclass(frozen=True, slots=True)
class FrameRow:
    """``frame_stats.csv`` of a client: one row per captured frame, in order of outcome."""

    client_id: int
    frame_id: int
    capture_ts: int
    send_ts: int | None
    recv_ts: int | None
    outcome: Outcome
    reason: str
    e2e_latency: float | None
    """ms, capture to result, client's clock."""
    slo_ms: float
    desired_model: str
    """Variant that the client sized the frame for."""
    used_model: str
    """Variant that answered it."""
    next_model: str
    """Variant that the server asked for with the answer."""
    input_size: int | None
    jpeg_quality: int | None
    frame_wire_size: int | None
    """bytes of the encoded frame."""
    network_time: float | None
    """ms: e2e latency less the server's and the client's own shares."""
    bandwidth_bps: float | None
    rtt_ms: float | None
    encode_ms: float | None
    queue_ms: float | None
    """ms that the answer waited in the server's queue."""
    infer_ms: float | None
    server_ms: float | None
    """ms between reception and answer at the server."""
    accuracy: float
    """Profiled accuracy of the variant used; 0 for a miss."""
    source_frame: int | None = None
    """Number of the frame in its source, from 0; the same again when the source is shown again."""

    @property
    def dropped_frame(self) -> bool:
        """Jellyfish's column: true for every miss but a late frame."""
        return self.outcome not in (Outcome.ON_TIME, Outcome.LATE)


@dataclasses.dataclass(frozen=True, slots=True)
class ServerFrameRow:
    """``frame_stats.csv`` of the server: one row per received frame."""

    client_id: int
    frame_id: int
    recv_ts: int
    send_net_time: float
    """ms, capture at the client to reception, by the clock-offset estimate."""
    dispatch_time: float
    """ms, reception to the executor's queue."""
    processing_time: float
    """ms, decode and preprocess."""
    waiting_time: float
    """ms in the queue."""
    prediction_time: float
    """ms, inference and NMS of the batch."""
    response_time: float
    """ms, end of inference to the answer on the stream."""
    client_bw: float
    """bit/s as the client reported."""
    estimated_bw: float
    """bit/s as planning used."""
    request_size: int
    response_size: int
    scheduler_run_count: int
    used_model: str
    gpu_number: int
    batch: int
    outcome: Outcome
    reason: str
    queued_ts: int | None = None
    """When it entered the queue, decoded; empty for a frame that never did."""
    deadline_ts: int | None = None
    """Latest instant at which its batch may end, as the dispatcher saw it."""
    group: str = DEFAULT_GROUP
    """Model group."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlanRow:
    """``plans.csv``: one row per planning run."""

    run: int
    ts: int
    trigger: str
    policy: str
    clients: int
    rejected: int
    old_models: str
    new_models: str
    execution_time: float
    """ms, CPU time of the planner."""
    switches: int
    fallback: bool
    accuracy: float
    """Request-weighted profiled accuracy of the plan."""
    latency_factor: float = 2.0
    """Batches that a frame was planned to take at its device, waiting included."""


@dataclasses.dataclass(frozen=True, slots=True)
class DispatchRow:
    """``dispatch.csv``: one row per decision that ran or dropped frames, enough to replay it."""

    ts: int
    gpu_number: int
    variant: str
    planned_batch: int
    """0: no decision of the dispatcher; the plan runs another group than the frames', or their client has gone."""
    queue: int
    """Frames in the queue at the decision."""
    batch: int
    """Frames run; 0 for a drop."""
    dropped: int
    head_slack: float
    """ms to the earliest deadline."""
    infer_ms: float
    planned_variant: str = ""
    """What the plan runs here; ``variant`` may be a faster one that was loaded too. Empty: the same."""
    fallbacks: str = ""
    """Loaded variants that the dispatcher could have chosen instead, separated by spaces."""
    speed: float = 1.0
    """Factor on the profile that the decision counted with."""
    group: str = DEFAULT_GROUP
    """Model group of the frames."""
    overdue: str = ""
    """``client_id:frame_id:queued_ts`` of its frames that were answered before, at their deadline; by spaces."""
    reserve_ms: float = 0.0
    """What the decision kept free before deadlines where it could, for batches that take longer than expected."""


@dataclasses.dataclass(frozen=True, slots=True)
class ShapingRow:
    """``shaping.csv``: one row per change of a link's rate."""

    ts: int
    link: str
    bw: float
    """Mbit/s asked for by the trace; 0 is an outage."""
    actual_bw: float
    """Mbit/s in force at ``ts``."""
    late_ms: float
    """ms between the trace's instant and ``ts``."""


@dataclasses.dataclass(frozen=True, slots=True)
class FpsRow:
    """``fps.csv``: one row per second and client."""

    ts: int
    client_id: int
    captured: int
    sent: int
    answered: int
    on_time: int


Row = TypeVar("Row")


class CsvLog(Generic[Row]):
    """Appends rows of one dataclass to a CSV file and flushes each, so that a killed process loses none.

    Args:
        path: of the file; directories are made.
        row_type: the dataclass.
        resumed: go on with the file of a writer that was killed, without its last line if that was not finished.
        exact: write every digit of a float, for rows that are read again and must be the same; else six.

    Attributes:
        rows: lines that the file has held since it was begun, the header apart.
    """

    def __init__(self, path: Path, row_type: type[Row], *, resumed: bool = False, exact: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = columns(row_type)
        self._values = attrgetter(*self._columns)
        self._cell = _exact_cell if exact else _cell
        lines = _keep_whole_lines(path) if resumed and path.exists() else 0
        self._file: TextIO = path.open("a" if lines else "w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self.rows = max(0, lines - 1)
        if not lines:
            self._writer.writerow(self._columns)
            self._file.flush()

    def write(self, row: Row) -> None:
        """Append and flush one row."""
        self.write_all((row,))

    def write_all(self, rows: Iterable[Row]) -> None:
        """Append rows and flush once."""
        for row in rows:
            self._writer.writerow([self._cell(value) for value in self._values(row)])
            self.rows += 1
        self._file.flush()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


def set_aside(directory: Path, names: Iterable[str]) -> Path | None:
    """Move an earlier run's files into ``earlier-<n>`` beside them, so that a new run in this place costs no rows.

    A run whose CSV files have no row is not kept: its files are left to be replaced.

    Args:
        directory: where the new run will write.
        names: the files and folders of one run; those that are absent are passed over.

    Returns:
        Where they are now; ``None``: there was nothing to keep.
    """
    found = [path for name in names if (path := directory / name).exists()]
    tables = [path for path in found if path.suffix == ".csv" and path.is_file()]
    if not found or (tables and not any(map(_has_rows, tables))):
        return None
    ends = (place.name.removeprefix(EARLIER) for place in directory.glob(f"{EARLIER}*"))
    taken = [int(end) for end in ends if end.isdecimal()]
    kept = directory / f"{EARLIER}{max(taken, default=0) + 1}"
    kept.mkdir()
    for path in found:
        path.rename(kept / path.name)
    return kept


def _has_rows(path: Path) -> bool:
    with path.open("rb") as file:
        file.readline()
        return bool(file.readline())


def _keep_whole_lines(path: Path) -> int:
    """Cut off a last line that has no end; how many are left."""
    lines = size = 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                lines, size = lines + 1, size + len(line)
        file.truncate(size)
    return lines


def columns(row_type: type[Any]) -> list[str]:
    """Column names of a row type: its fields, then its properties."""
    names = [column.name for column in dataclasses.fields(row_type)]
    return names + [name for name, value in vars(row_type).items() if isinstance(value, property)]


def read_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Read a file written by :class:`CsvLog`: unknown columns are ignored, those that have a default may be missing.

    Raises:
        ValueError: another column of ``row_type`` is missing, or a cell does not parse.
    """
    hints = typing.get_type_hints(row_type)
    known = dataclasses.fields(typing.cast(Any, row_type))
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        present = set(reader.fieldnames or ())
        missing = {column.name for column in known if column.default is dataclasses.MISSING} - present
        if missing:
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        names = [column.name for column in known if column.name in present]
        for cells in reader:
            yield row_type(**{name: _parse(cells[name], hints[name]) for name in names})


def read_record(path: Path) -> dict[str, Any]:
    """The object of a JSON file that carries ``schema_version``; one without is of version 1.

    Raises:
        SchemaError: it is not a JSON object, or of a newer version than this program knows.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise SchemaError(f"{path} is not JSON: {fault}; write it again") from fault
    if not isinstance(content, dict):
        raise SchemaError(f"{path} holds a {type(content).__name__}, not an object; write it again")
    version = content.get("schema_version", 1)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise SchemaError(
            f"{path} has schema_version {version!r}; this program reads 1 to {SCHEMA_VERSION}: "
            "use the moonjelly that wrote it, or a newer one"
        )
    return content


def _cell(value: object) -> object:
    kind = type(value)
    if kind is int or kind is str:
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return ""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bool):
        return int(value)
    return value


def _exact_cell(value: object) -> object:
    return float.__repr__(value) if isinstance(value, float) else _cell(value)


def _parse(cell: str, hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if cell == "":
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is bool:
        return cell not in ("0", "False", "")
    return hint(cell)
