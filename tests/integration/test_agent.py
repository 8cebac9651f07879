"""The agent on this machine: jobs that outlive whoever started them, and answers about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiment_manager import agent

SCRIPT = Path(agent.__file__)


def ask(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=True, timeout=60)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def command(body: str) -> list[str]:
    return ["--", sys.executable, "-c", body]


READY = "import os, sys; fd = int(sys.argv[sys.argv.index('--ready-fd') + 1]); os.write(fd, b'{\"port\": 7}\\n'); "


def test_a_job_outlives_its_starter_and_reports_its_exit(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, *command("print('hello'); raise SystemExit(3)"))
    told = ask("wait", job, "--for", "exited", "--timeout-s", "30")
    assert told["state"] == "exited"
    assert told["exit"]["status"] == 3
    assert (tmp_path / "job" / "log").read_text() == "hello\n"


def test_ready_line_is_kept(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, "--ready", *command(READY + "sys.stdin.read() or __import__('signal').pause()"))
    assert ask("wait", job, "--for", "ready", "--timeout-s", "30")["ready"] == {"port": 7}
    assert ask("stop", job)["exit"]["stopped"]


def test_a_held_job_waits_for_go(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    body = READY + "start = int(sys.argv[sys.argv.index('--start-fd') + 1]); os.read(start, 1); print('begun')"
    ask("start", job, "--ready", "--hold", *command(body))
    ask("wait", job, "--for", "ready", "--timeout-s", "30")
    assert (tmp_path / "job" / "log").read_text() == ""
    ask("go", job)
    assert ask("wait", job, "--for", "exited", "--timeout-s", "30")["exit"]["status"] == 0
    assert (tmp_path / "job" / "log").read_text() == "begun\n"


def test_stop_ends_what_the_job_started_too(tmp_path: Path) -> None:
    job, child = str(tmp_path / "job"), tmp_path / "child"
    body = (
        (
            "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "inner = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
            f"open({str(child)!r}, 'w').write(str(inner.pid)); "
        )
        + READY
        + "signal.pause()"
    )
    ask("start", job, "--ready", *command(body))
    ask("wait", job, "--for", "ready", "--timeout-s", "30")
    pid = int(child.read_text())
    told = ask("stop", job, "--timeout-s", "0.3")
    assert told["exit"]["status"] == -signal.SIGKILL
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_killed_supervisor_is_vanished(tmp_path: Path) -> None:
    job = tmp_path / "job"
    ask("start", str(job), "--ready", *command(READY + "import signal; signal.pause()"))
    ask("wait", str(job), "--for", "ready", "--timeout-s", "30")
    record = json.loads((job / "job.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    assert ask("wait", str(job), "--for", "exited", "--timeout-s", "30")["state"] == "vanished"


def test_a_command_that_does_not_exist_is_an_exit(tmp_path: Path) -> None:
    job = str(tmp_path / "job")
    ask("start", job, "--", "/does/not/exist")
    told = ask("wait", job, "--for", "exited", "--timeout-s", "30")
    assert told["exit"]["status"] == 127
    assert "No such file" in told["exit"]["reason"]


def test_an_unknown_job_is_absent(tmp_path: Path) -> None:
    assert ask("status", str(tmp_path / "nothing"))["state"] == "absent"


def test_starting_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        ask("start", str(tmp_path / "job"), *command("pass"))
