"""``src/server/profiler/run.sh`` as the Jellyfish README prints it, and stopping it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from moonjelly import profiles
from tests.support.serving import counting, ended_at_last

SCRIPT = "src/server/profiler/run.sh"


def test_it_runs_from_its_own_folder_and_writes_jellyfish_s_files(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "num_gpus": "1",
        "total_dnns": "2",
        "max_batch": "2",
        "total_batches": "12",
        "zoo": "yolov4",
    }
    arguments = ["--runtime", "simulated", "--kind", "reference-gpu", "--out", str(tmp_path)]
    done = subprocess.run(
        ["./run.sh", *arguments],
        cwd=(root / SCRIPT).parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "reference-gpu" / "latency").iterdir()) == [
        "profile_latency_128.txt",
        "profile_latency_160.txt",
    ]
    assert "frames/s at 2" in done.stdout
    again = subprocess.run(
        [str(root / SCRIPT), *arguments], cwd="/", env=environment, capture_output=True, text=True, timeout=140
    )
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_it_resumes(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {
        "num_gpus": "2",
        "total_dnns": "2",
        "max_batch": "2",
        "total_batches": "40",
        "zoo": "yolov4",
    }
    for attempt in counting():
        results = tmp_path / str(attempt)
        command = [str(root / SCRIPT), "--runtime", "simulated", "--kind", "reference-gpu", "--out", str(results)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with ended_at_last(process):
            assert process.stdout is not None
            assert any(re.search(r"\d+ %", line) for line in iter(process.stdout.readline, ""))
            process.send_signal(number)
            out, error = process.communicate(timeout=120)
        if process.returncode != 0:  # otherwise it had measured everything before it heard of the signal
            break
    assert process.returncode == 3, error
    assert "to go. The same command goes on from here." in out
    assert "Traceback" not in error
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=140)
    assert resumed.returncode == 0, resumed.stderr
    rows = profiles.read_latency(results / "reference-gpu" / "latency" / "profile_latency_128.txt", "128")
    assert {batch: len(times) for batch, times in rows.items()} == {1: 40, 2: 40}
