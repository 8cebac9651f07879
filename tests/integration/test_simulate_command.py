"""``moonjelly simulate`` as a user calls it, on tiny inputs."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
import typer

from cli.app import main
from cli.simulate.results import collecting
from moonjelly.telemetry import FpsRow, read_rows


def simulate(*words: object) -> int:
    return main(["simulate", *map(str, words)])


def test_trace_writes_every_run_a_table_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = simulate(
        "trace", "--trace", "wifi-good", "--clients", 2, "--seconds", 3, "--warmup", 1, "--seeds", 2,
        "--fps", "12,29.97", "--slow", "0@2-3=0.5", "--policy", "best-uniform",
        "--dispatcher", "edf-adaptive", "--dispatcher", "nexus", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    assert "best-uniform+nexus" in printed
    assert printed.rstrip().endswith(str(tmp_path))
    assert {path.name for path in tmp_path.glob("*.*")} >= {"runs.csv", "summary.json", "accuracy_misses.pdf"}
    runs = list(tmp_path.glob("wifi-good/*/seed-*/summary.json"))
    assert len(runs) == 4
    summary = json.loads(runs[0].read_text())
    assert summary["frames_captured"] == pytest.approx(3 * (12 + 29.97), abs=2)
    assert summary["versions"]["moonjelly"]

    server = runs[0].parent
    name = server.parent.name.split("+")[1]
    assert simulate("replay", server, "--zoo", "yolov4", "--dispatcher", name, "--out", tmp_path / "replay") == 0
    assert "decisions are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--policy", "best-uniform"), {"best-uniform+edf-adaptive"}),
        (("--dispatcher", "nexus"), {"multiset+nexus"}),
        (("--dispatcher", "nexus", "--system", "sa-dp+nexus"), {"multiset+nexus", "sa-dp+nexus"}),
    ],
)
def test_trace_crosses_one_side_with_the_default_of_the_other_beside_whole_systems(
    words: tuple[str, ...], names: set[str], tmp_path: Path
) -> None:
    short = ("--trace", "wifi-good", "--clients", 1, "--seconds", 1, "--warmup", 0, "--seeds", 1)
    assert simulate("trace", *short, *words, "--out", tmp_path) == 0
    runs = [path.parent.parent.name for path in tmp_path.glob("wifi-good/*/seed-*/summary.json")]
    assert {run.removesuffix("+moonjelly") for run in runs} == names


def test_a_slowdown_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("trace", "--slow", "0@2-3", "--out", tmp_path) == 2
    assert "'slow' = '0@2-3'; DEVICE@BEGIN-END=SPEED is expected" in capsys.readouterr().err


def test_earlier_results_are_kept_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("--clients", 1, "--seconds", 1, "--warmup", 0, "--seeds", 1, "--system", "best-uniform", "--out", tmp_path)
    assert simulate("trace", "--trace", "wifi-good", *short, "--seed", 1) == 0
    assert simulate("trace", "--trace", "lte-city", *short, "--seed", 2) == 0
    assert f"earlier results: {tmp_path / 'earlier-1'}" in capsys.readouterr().out.replace("\n", "")
    for place, trace, seed in ((tmp_path / "earlier-1", "wifi-good", 1), (tmp_path, "lte-city", 2)):
        with (place / "runs.csv").open(newline="") as file:
            assert [(row["trace"], row["seed"]) for row in csv.DictReader(file)] == [(trace, str(seed))]
        assert json.loads((place / "summary.json").read_text())["runs"][0]["trace"] == trace
        assert (place / "accuracy_misses.pdf").is_file()
        assert [path.parent.name for path in place.glob("*/*/seed-*")] == ["best-uniform+edf-adaptive+moonjelly"]
        assert list(place.glob(f"{trace}/*/seed-{seed}/logs/server/frame_stats.csv"))


def test_a_system_that_is_named_twice_is_no_second_repetition(tmp_path: Path) -> None:
    short = ("--trace", "wifi-good", "--clients", 1, "--seconds", 1, "--warmup", 0, "--seeds", 1)
    twice = ("--system", "best-uniform", "--policy", "best-uniform", "--dispatcher", "edf-adaptive")
    assert simulate("trace", *short, *twice, "--out", tmp_path) == 0
    assert len(json.loads((tmp_path / "summary.json").read_text())["runs"]) == 1


def test_what_was_measured_before_ctrl_c_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = FpsRow(1, 2, 3, 4, 5, 6)
    with collecting(tmp_path / "fps.csv", FpsRow, "clients", 4) as found:
        found.add((row,))
        found.add(())
        signal.raise_signal(signal.SIGINT)
        found.add((row,))
    found.explain()
    assert found.stopped
    assert found.rows == [row] == list(read_rows(tmp_path / "fps.csv", FpsRow))
    assert "stopped after 2 of 4 clients" in capsys.readouterr().out


def test_a_measurement_that_was_stopped_at_once_has_nothing_to_show(tmp_path: Path) -> None:
    with collecting(tmp_path / "fps.csv", FpsRow, "clients", 4) as found:
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as stop:
        found.explain()
    assert stop.value.exit_code == 130


def test_compare_with_one_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("compare", "--instances", 1, "--solver", "highs", "--time-limit", 60, "--out", tmp_path) == 0
    assert "proven optimal in" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "summary.json").read_text())["table"]) == 12


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("trace", "--fps", "fast"), "'fps' = 'fast'; numbers separated by commas are expected"),
        (("trace", "--clients", "0"), "'clients' = 0; it must be positive"),
        (("trace", "--system", "multiset+lifo"), "unknown dispatcher 'lifo'; known: edf-adaptive"),
        (("trace", "--trace", "nowhere"), "'nowhere' is neither a trace file nor one of the names"),
        (("trace", "--seeds", "0"), "'seeds' = 0; at least one is needed"),
        (("trace", "--seconds", "inf"), "'seconds' = inf; it must be positive and finite"),
        (("trace", "--frame-scale", "inf"), "'frame_scale' = inf; it must be positive and finite"),
        (("trace", "--trace", "a/x.csv", "--trace", "b/x.csv"), "two traces are called 'x.csv'"),
        (("compare", "--time-limit", "0"), "'time_limit' = 0; it must be positive and finite"),
        (("compare", "--policy", "best"), "unknown planning policy 'best'; known: multiset"),
        (("compare", "--solver", "abacus"), "unknown solver 'abacus'; known: auto, cplex, highs"),
        (("replay", "nowhere"), "nowhere cannot be replayed"),
    ],
)
def test_a_users_error_is_one_line(
    words: tuple[str, ...], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*words, "--out", tmp_path) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert "Traceback" not in shown.err
    assert not shown.out, "nothing was begun"
