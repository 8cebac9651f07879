"""The main job as a user runs it: real processes, real weights, a shaped network; and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from moonjelly.telemetry import ShapingRow, read_rows
from moonjelly.types import Outcome
from tests.support.rtsp import rtsp_camera
from tests.support.serving import ended_at_last, until

FIXED_FIELDS = {
    "frames_sent", "frames_captured", "on_time", "late", "skipped", "rejected", "dropped", "lost", "failed",
    "miss_rate", "f1", "effective_f1", "effective_accuracy", "latency_ms", "clients", "plans", "versions", "machine",
}  # fmt: skip


def demo(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", "demo", "--no-live", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment, cwd=root)


def left_behind(out: Path) -> list[str]:
    """Command lines of processes that still write below ``out``."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(out) in line]


def check_nothing_is_left(out: Path) -> None:
    until(lambda: not left_behind(out), lambda: str(left_behind(out)))


def check_run(out: Path, clients: int) -> dict[str, object]:
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    assert set(summary) >= FIXED_FIELDS
    assert sum(int(str(summary[outcome.value.lower()])) for outcome in Outcome) == summary["frames_captured"]
    assert len(summary["clients"]) == clients  # type: ignore[arg-type]
    assert int(str(summary["frames_sent"])) > 0, "how many come in time is for the machine to say"
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 3 + 1
    for client in range(clients):
        assert (out / "logs" / "client" / f"host_{client}" / "frame_stats.csv").stat().st_size > 0
    assert (out / "logs" / "network" / "shaping.csv").exists()
    check_nothing_is_left(out)
    return summary


def test_synthetic_zoo_over_a_generated_trace(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = demo(root, "--clients", "2", "--seconds", "4", "--seed", "3", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "frames on time" in done.stdout
    summary = check_run(out, 2)
    assert summary["frames_captured"] == 4 * (12 + 15)
    assert summary["effective_f1"] is not None


def test_real_video_real_weights_real_trace(root: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = demo(
        root,
        *("--zoo", "yolo-fastest", "--source", str(data_dir / "videos" / "highway-camera.mp4")),
        *("--trace", str(data_dir / "traces" / "jellyfish-lte-upload.txt")),
        *("--clients", "2", "--seconds", "4", "--out", str(out)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_run(out, 2)


def test_an_outage_in_which_a_trace_begins_is_met_by_frames_not_by_registration(root: Path, tmp_path: Path) -> None:
    out, trace = tmp_path / "run", tmp_path / "trace.txt"
    trace.write_text("0\n" * 600 + "20\n")
    done = demo(root, "--clients", "1", "--seconds", "1", "--trace", f"{trace}@0", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    (begun, *_) = read_rows(out / "logs" / "network" / "shaping.csv", ShapingRow)
    assert begun.bw == 0.0
    assert json.loads((out / "summary.json").read_text())["frames_captured"] == 12
    check_nothing_is_left(out)


def test_a_camera_has_no_f1_and_is_summed_up_all_the_same(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with rtsp_camera() as (_, url):
        done = demo(root, "--source", url, "--clients", "1", "--seconds", "2", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "effective F1 unknown" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["effective_f1"] is None
    assert summary["frames_captured"] == 2 * 12
    assert (out / "report.html").exists()
    check_nothing_is_left(out)


def test_ctrl_c_still_sums_up_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "cli",
        "demo",
        "--no-live",
        "--clients",
        "1",
        "--seconds",
        "600",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    log = out / "logs" / "client" / "host_0" / "frame_stats.csv"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)
    with ended_at_last(process):
        while not log.exists() or "ON_TIME" not in log.read_text():
            with pytest.raises(subprocess.TimeoutExpired):  # the demo goes on
                process.wait(0.2)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert "interrupted" in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["on_time"] > 0
    assert summary["frames_captured"] < 600 * 12, "what would have come later is not missed"
    check_nothing_is_left(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--clients", "0"), "at least 1 is needed"),
        (("--zoo", "nowhere"), "nowhere"),
        (("--source", "nowhere.mp4"), "nowhere.mp4"),
        (("--trace", "nowhere.txt"), "nowhere.txt"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_a_wrong_option_is_named_and_leaves_nothing(
    root: Path, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    out = tmp_path / "run"
    done = demo(root, "--seconds", "2", "--out", str(out), *arguments)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    check_nothing_is_left(out)


def test_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = demo(root, "--out", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
