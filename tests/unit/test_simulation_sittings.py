"""Measurements that are interrupted, and gone on with by the same command."""

from __future__ import annotations

import dataclasses
import math
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cli.simulate.sittings import STUDY_FILE, SUMMARY_FILE, Collection, Measurement, collecting, conditions
from moonjelly.errors import MoonjellyError
from moonjelly.summary import write_json
from moonjelly.telemetry import read_rows


@dataclass(frozen=True)
class Found:
    instance: int
    policy: str
    accuracy: float


ROWS = [Found(instance, policy, math.pi / (instance + 1)) for instance in range(4) for policy in ("a", "b")]


def measurement(out: Path, **others: str) -> Measurement[Found]:
    return Measurement(
        out=out,
        table="found.csv",
        row_type=Found,
        noun="instances",
        total=4,
        of=lambda row: row.instance,
        rows_each=2,
        conditions={"seed": "0"} | others,
        others=("figure.pdf",),
    )


def measure(found: Collection[Found], instances: int = 4) -> None:
    """So many instances that are not there yet."""
    for instance in [each for each in range(4) if each not in found.there][:instances]:
        found.add(ROWS[2 * instance : 2 * instance + 2])


def interrupted_after(out: Path, instances: int) -> None:
    with collecting(measurement(out)) as found, found.interruptible():
        measure(found, instances)
        signal.raise_signal(signal.SIGINT)
    assert found.stopped


def test_what_was_measured_before_ctrl_c_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting(measurement(tmp_path)) as found:
        with found.interruptible():
            measure(found, 2)
            signal.raise_signal(signal.SIGINT)
            measure(found)
        found.explain()
    assert found.stopped
    assert found.rows == ROWS[:4] == list(read_rows(tmp_path / "found.csv", Found))
    assert "stopped after 2 of 4 instances; the same command goes on from there" in capsys.readouterr().out


def test_a_measurement_that_was_stopped_at_once_has_nothing_to_show(tmp_path: Path) -> None:
    with collecting(measurement(tmp_path)) as found:
        with found.interruptible():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(typer.Exit) as stop:
            found.explain()
    assert stop.value.exit_code == 130


def test_the_same_measurement_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for instances in (1, 0, 2):
        interrupted_after(tmp_path, instances)
    with collecting(measurement(tmp_path)) as found:
        assert found.rows == ROWS[:6], "to the last digit"
        assert found.there == {0, 1, 2}
        measure(found)
        found.explain()
        assert [sitting["measured"] for sitting in found.sittings()] == [1, 2, 1], "one has measured nothing"
    assert list(read_rows(tmp_path / "found.csv", Found)) == found.rows == ROWS
    printed = capsys.readouterr().out
    assert "3 of 4 instances are there; going on with the others" in printed
    assert "measured in 3 sittings (1 + 2 + 1 instances); each time is of its own sitting" in printed


def test_a_file_that_was_cut_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    interrupted_after(tmp_path, 3)
    path = tmp_path / "found.csv"
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with collecting(measurement(tmp_path)) as found:
            lines = whole[:size].count(b"\n") - 1
            assert len(found.there) == max(0, lines) // 2, "of each that has all its rows"
            measure(found)
        assert list(read_rows(path, Found)) == ROWS
    assert not list(tmp_path.glob("earlier-*"))


def test_what_is_passed_over_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting(measurement(tmp_path)) as found:
        with found.interruptible():
            measure(found, 2)
            found.pass_over(1)
            signal.raise_signal(signal.SIGINT)
        found.explain()
    assert "stopped after 2 of 3 instances" in capsys.readouterr().out


def told(text: str) -> str:
    return text.replace("\n", "")


def test_other_conditions_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted_after(tmp_path, 2)
    with collecting(measurement(tmp_path, seed="1")) as found:
        assert not found.rows
    assert f"earlier results: {tmp_path}/earlier-1 (measured with seed = 0, not 1)" in told(capsys.readouterr().out)
    assert list(read_rows(tmp_path / "earlier-1" / "found.csv", Found)) == ROWS[:4]
    assert (tmp_path / "earlier-1" / STUDY_FILE).is_file()


def test_what_has_reached_its_end_is_measured_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting(measurement(tmp_path)) as found:
        measure(found)
        write_json(tmp_path / SUMMARY_FILE, {"complete": True})
    with collecting(measurement(tmp_path)) as found:
        assert not found.rows
    assert told(capsys.readouterr().out).endswith(f"earlier results: {tmp_path}/earlier-1")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("found.csv", "instance,policy,accuracy\r\n0,a,much\r\n"),
        ("found.csv", "instance,policy,accuracy\r\n0\r\n"),
        ("found.csv", "policy\r\na\r\n"),
        (STUDY_FILE, "{"),
        (STUDY_FILE, '{"conditions": {"seed": "0"}, "sittings": [{"began": 1}]}'),
    ],
)
def test_what_cannot_be_read_is_kept_and_measured_anew(file: str, content: str, tmp_path: Path) -> None:
    interrupted_after(tmp_path, 2)
    (tmp_path / file).write_text(content, newline="")
    with collecting(measurement(tmp_path)) as found:
        assert not found.rows
    assert (tmp_path / "earlier-1" / file).read_text() == content.replace("\r\n", "\n")


def test_two_processes_do_not_measure_into_one_folder(tmp_path: Path) -> None:
    refused = pytest.raises(MoonjellyError, match="runs a simulation into")
    with collecting(measurement(tmp_path)), refused, collecting(measurement(tmp_path)):
        pass


def test_conditions_tell_options_apart_however_long_they_are() -> None:
    @dataclass(frozen=True)
    class Options:
        policies: tuple[str, ...]
        budget_s: float

    one = Options(("multiset", "sa-dp"), math.inf)
    first, again = conditions("timings", one), conditions("timings", one)
    assert first == again
    assert first["policies"] == "('multiset', 'sa-dp')"
    assert conditions("compare", one) != first
    many = [dataclasses.replace(one, policies=("multiset",) * 100 + (last,)) for last in ("exact", "sa-dp")]
    texts = [conditions("timings", each)["policies"] for each in many]
    assert texts[0] != texts[1]
    assert all(len(text) < 100 for text in texts)
