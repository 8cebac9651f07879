"""``moonjelly simulate`` as a user calls it, on tiny inputs."""

from __future__ import annotations

import csv
import io
import json
import re
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


COMPARE = ("compare", "--instances", 1, "--policy", "best-uniform", "--solver", "highs", "--time-limit", 60)
TIMINGS = ("timings", "--instances", 1, "--policy", "best-uniform")
TRACE = (
    "trace", "--trace", "wifi-good", "--clients", 1, "--seconds", 1, "--warmup", 0, "--seeds", 6, "--system",
    "best-uniform",
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "table", "repeated"),
    [
        (COMPARE, "compare.csv", ("devices", "clients", "instance", "policy", "accuracy")),
        (TIMINGS, "instances.csv", ("devices", "clients", "policy", "instance")),
        (TRACE, "runs.csv", ("trace", "system", "seed", "frames", "miss_rate", "effective_accuracy", "p99_ms")),
    ],
)
def test_the_same_command_goes_on_with_what_is_missing(
    words: tuple[object, ...],
    table: str,
    repeated: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulate(*words, "--out", tmp_path) == 0
    whole = (tmp_path / table).read_text()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "summary.json").unlink()
    (tmp_path / table).write_text("".join(lines[:5]) + lines[5][:7], newline="")

    capsys.readouterr()
    assert simulate(*words, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert re.search(
        rf"^4 of {len(lines) - 1} (instances|plans|runs) are there; going on with the others$", printed, re.M
    )
    assert f"measured in 2 sittings (4 + {len(lines) - 5} " in printed
    before, after = (
        [[row[name] for name in repeated] for row in csv.DictReader(io.StringIO(text))]
        for text in (whole, (tmp_path / table).read_text())
    )
    assert after == before
    assert (tmp_path / table).read_text().startswith("".join(lines[:5])), "what was measured is not touched"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["complete"]
    assert [sitting["measured"] for sitting in summary["sittings"]] == [4, len(lines) - 5]
    assert not list(tmp_path.glob("earlier-*"))


def test_another_command_does_not_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(*TIMINGS, "--out", tmp_path) == 0
    (tmp_path / "summary.json").unlink()
    assert simulate(*TIMINGS, "--seed", 1, "--out", tmp_path) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert f"earlier results: {tmp_path / 'earlier-1'} (measured with seed = 0, not 1)" in printed
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} >= {"instances.csv", "timings.csv", "study.json"}
    assert "are there" not in printed


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
