"""``moonjelly test``: what runs a second time, and what its exit status says then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAILS_ONCE = """
from pathlib import Path
def test_that_passes(): pass
def test_that_fails_once():
    seen = Path(__file__).with_name("seen")
    before = seen.exists()
    seen.touch()
    assert before
"""
FAILS = "def test_that_fails(): raise AssertionError"


def run(root: Path, place: Path, tests: str, *options: str) -> tuple[int, str]:
    (place / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "cli", "test", *options, str(place / "test_it.py")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("tests", "options", "status", "said"),
    [
        (FAILS_ONCE, [], 1, "1 failed, 1 passed"),
        (FAILS_ONCE, ["--retry-failed"], 0, "PASSED ONLY WHEN REPEATED"),
        (FAILS, ["--retry-failed"], 1, "what failed runs once more, alone"),
    ],
)
def test_what_failed_may_run_once_more(
    root: Path, tmp_path: Path, tests: str, options: list[str], status: int, said: str
) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ncache_dir = {tmp_path / 'cache'}\n")
    found, told = run(root, tmp_path, tests, *options)
    assert found == status
    assert said in told
