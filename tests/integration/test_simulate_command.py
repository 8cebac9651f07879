"""``moonjelly simulate`` as a user calls it, on tiny inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.app import main


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


def test_compare_with_one_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("compare", "--instances", 1, "--solver", "highs", "--time-limit", 5, "--out", tmp_path) == 0
    assert "proven optimal in" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "summary.json").read_text())["table"]) == 12


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("trace", "--fps", "fast"), "'fps' = 'fast'; numbers separated by commas are expected"),
        (("trace", "--clients", "0"), "'clients' = 0; it must be positive"),
        (("trace", "--system", "multiset+lifo"), "unknown dispatcher 'lifo'; known: edf-adaptive"),
        (("trace", "--trace", "nowhere"), "'nowhere' is neither a trace file nor one of the names"),
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
