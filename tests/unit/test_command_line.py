"""A user's mistake is one line that names it, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.app import main
from network_shaping import app as shaping


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["shave"], 2, "moonjelly: no command 'shave'; known: demo, test, "),
        (["shape", "trcae"], 2, "moonjelly shape: No such command 'trcae'"),
        (["shape", "trace"], 2, "moonjelly shape trace: Missing argument 'name'; see moonjelly shape trace --help"),
        (
            ["shape", "trace", "lte-city", "--seconds", "x"],
            2,
            "moonjelly shape trace: Invalid value for '--seconds': 'x'; ",
        ),
        (["shape", "trace", "lte-city", "--sed", "1"], 2, "moonjelly shape trace: No such option: --sed"),
        (
            ["shape", "trace", "lte-city", "--seed", "-1"],
            2,
            "moonjelly shape trace: Invalid value for '--seed': '-1'; ",
        ),
        (
            ["serve", "--port", "abc"],
            2,
            "moonjelly serve: Invalid value for '--port': 'abc'; input should be a valid integer",
        ),
        (
            ["simulate", "trace", "--clients", "1.5"],
            2,
            "moonjelly simulate trace: Invalid value for '--clients': '1.5'; ",
        ),
        (["shape", "trace", "nowhere.txt"], 2, "moonjelly shape: 'nowhere.txt' is neither a trace file nor one of "),
    ],
)
def test_a_mistake_is_one_line(words: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(text)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("shape trace lte-city --seconds", "x"),
        ("shape trace lte-city --seed", "-1"),
        ("serve --port", "abc"),
        ("simulate trace --clients", "1.5"),
        ("zoo train --out x --jobs", "0"),
    ],
)
def test_a_value_of_the_wrong_kind_is_echoed(words: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    *command, option = words.split()
    assert main([*command, option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f": Invalid value for '{option}': '{value}'; input should be " in line
    assert line.endswith(" --help")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["shape", "trace", "lte-city", "--out", str(file / "trace.txt")]) == 1
    assert capsys.readouterr().err == (
        f"moonjelly shape: {file / 'trace.txt'}: Not a directory; check or change the path\n"
    )


def test_the_unexpected_end_of_a_stream_is_not_taken_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = typer.Typer()

    @ending.command()
    def end() -> None:
        raise EOFError("the stream has ended")

    monkeypatch.setattr(shaping, "app", ending)
    with pytest.raises(EOFError, match="the stream has ended"):
        main(["shape"])


def test_a_group_without_a_command_shows_its_help_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shape"]) == 2
    shown = capsys.readouterr()
    assert "relay" in shown.out + shown.err
    assert "moonjelly shape:" not in shown.err


def test_a_trace_is_written_to_a_new_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    assert main(["shape", "trace", "lte-city", "--out", str(file)]) == 2
    assert (
        capsys.readouterr().err == f"moonjelly shape: --out {file} exists; name another file (nothing is overwritten)\n"
    )
    assert file.read_text() == "mine"
