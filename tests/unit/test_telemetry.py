"""Rows survive the file, and every column is documented."""

from __future__ import annotations

import dataclasses
import re
from contextlib import closing
from pathlib import Path

import pytest

from moonjelly import telemetry
from moonjelly.errors import SchemaError
from moonjelly.telemetry import CsvLog, FpsRow, PlanRow, ServerFrameRow, columns, read_record, read_rows, set_aside
from moonjelly.types import Outcome

ROOT = Path(__file__).resolve().parents[2]
ROW_TYPES = [
    kind
    for name, kind in vars(telemetry).items()
    if name.endswith("Row") and isinstance(kind, type) and dataclasses.is_dataclass(kind)
]
PLAN = PlanRow(3, 17, "interval", "multiset", 4, 0, "a b", "a c", 1.25, 1, True, 0.5)


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "plans.csv", PlanRow)
    log.write(PLAN)
    log.close()
    assert list(read_rows(tmp_path / "plans.csv", PlanRow)) == [PLAN]


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "plans.csv", PlanRow)
    log.write(PLAN)
    assert list(read_rows(tmp_path / "plans.csv", PlanRow)) == [PLAN]
    log.close()


def test_an_earlier_run_s_files_are_set_aside_together(tmp_path: Path) -> None:
    names = ("fps.csv", "client.json", "detections.json")
    kept = []
    for run in range(3):
        kept.append(set_aside(tmp_path, names))
        with closing(CsvLog(tmp_path / "fps.csv", FpsRow)) as log:
            log.write(FpsRow(1, run, 2, 3, 4, 5))
        (tmp_path / "client.json").write_text(str(run))
        (tmp_path / "mine.txt").write_text("mine")
    assert kept == [None, tmp_path / "earlier-1", tmp_path / "earlier-2"]
    for run, place in enumerate([*kept[1:], tmp_path]):
        assert [row.client_id for row in read_rows(place / "fps.csv", FpsRow)] == [run]
        assert (place / "client.json").read_text() == str(run)
    assert (tmp_path / "mine.txt").exists()


def test_a_run_without_rows_is_not_kept(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "absent", ("fps.csv",)) is None
    CsvLog(tmp_path / "fps.csv", FpsRow).close()
    (tmp_path / "summary.json").write_text("{}")
    assert set_aside(tmp_path, ("fps.csv", "summary.json")) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fps.csv", "summary.json"]


def test_folders_and_files_without_a_table_are_set_aside_too(tmp_path: Path) -> None:
    (tmp_path / "wifi.csv" / "seed-1").mkdir(parents=True)
    (tmp_path / "summary.json").write_text("{}")
    kept = set_aside(tmp_path, ("summary.json", "wifi.csv"))
    assert kept is not None
    assert (kept / "wifi.csv" / "seed-1").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["earlier-1"]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plans.csv"
    path.write_text("run,ts\n1,2\n")
    with pytest.raises(ValueError, match="execution_time"):
        list(read_rows(path, PlanRow))


def test_an_unknown_column_is_ignored(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "plans.csv", PlanRow)
    log.write(PLAN)
    log.close()
    text = (tmp_path / "plans.csv").read_text().splitlines()
    (tmp_path / "plans.csv").write_text(f"{text[0]},later\n{text[1]},x\n")
    assert list(read_rows(tmp_path / "plans.csv", PlanRow)) == [PLAN]


def test_outcomes_and_empty_cells(tmp_path: Path) -> None:
    values = {
        field.name: {"int": 1, "float": 0.5, "str": "x", "Outcome": Outcome.DROPPED}.get(str(field.type))
        for field in dataclasses.fields(ServerFrameRow)
    }
    row = ServerFrameRow(**values)
    log = CsvLog(tmp_path / "frames.csv", ServerFrameRow)
    log.write(row)
    log.close()
    assert list(read_rows(tmp_path / "frames.csv", ServerFrameRow)) == [row]


@pytest.mark.parametrize("kind", ROW_TYPES, ids=lambda kind: kind.__name__)
def test_every_column_is_documented(kind: type) -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert set(columns(kind)) <= documented


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema_version": 2}', "has schema_version 2; this program reads 1 to 1"),
        ('{"schema_version": "1"}', "has schema_version '1'"),
        ("[]", "holds a list, not an object"),
        ("{", "is not JSON"),
    ],
)
def test_a_record_that_cannot_be_understood_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "client.json").write_text(text)
    with pytest.raises(SchemaError, match=r"client\.json") as caught:
        read_record(tmp_path / "client.json")
    assert said in str(caught.value)


def test_a_record_from_before_versions_and_one_with_more_fields_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"fps": 15}')
    (tmp_path / "more.json").write_text('{"schema_version": 1, "colour": "red"}')
    assert read_record(tmp_path / "old.json") == {"fps": 15}
    assert read_record(tmp_path / "more.json")["colour"] == "red"


def test_the_documented_version_is_the_one_in_force() -> None:
    text = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    assert f"Schema version: {telemetry.SCHEMA_VERSION}," in text


def test_jellyfish_columns_are_there() -> None:
    client = (
        "client_id frame_id send_ts recv_ts dropped_frame e2e_latency desired_model used_model next_model network_time "
        "frame_wire_size"
    )
    server = (
        "send_net_time dispatch_time processing_time waiting_time prediction_time client_bw estimated_bw request_size "
        "response_size scheduler_run_count used_model gpu_number"
    )
    assert set(client.split()) <= set(columns(telemetry.FrameRow))
    assert set(server.split()) <= set(columns(telemetry.ServerFrameRow))
