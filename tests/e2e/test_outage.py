"""A client, a relay and a server as processes; the link goes dead under them and comes back.

The relay is stopped (SIGSTOP): nothing passes in either direction, connections stay open, and what was sent lies in
the sockets' buffers and goes on its way when the relay runs again. How long things take is for
``benchmarks/outage.py``; here counts what is done and what is not.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from moonjelly.telemetry import FrameRow, ServerFrameRow, read_rows
from moonjelly.types import Outcome
from tests.support.serving import PATIENCE_S, ended_at_last, environment, running_server, until

FPS, SLO_MS = 15, 1_000


@pytest.mark.parametrize("outage_s", [5, pytest.param(60, marks=pytest.mark.full)], ids=lambda s: f"{s}s")
def test_a_session_survives_an_outage_and_nothing_stale_is_processed(tmp_path: Path, outage_s: int) -> None:
    out, trace = tmp_path / "client", tmp_path / "trace.txt"
    trace.write_text("20\n20\n")
    log = out / "frame_stats.csv"

    def counted(text: str) -> int:
        return log.read_text().count(text) if log.exists() else 0

    with running_server(tmp_path, devices=1) as server, contextlib.ExitStack() as stack:
        words = ["relay", "--target", f"127.0.0.1:{server.port}", "--link", f"a={trace}", "--out", str(tmp_path)]
        relay = subprocess.Popen(
            [sys.executable, "-m", "network_shaping", *words], env=environment(), stdout=subprocess.PIPE, text=True
        )
        stack.enter_context(ended_at_last(relay))
        assert relay.stdout is not None
        port = json.loads(relay.stdout.readline())["ports"][0]
        command = ["--server", f"127.0.0.1:{port}", "--fps", str(FPS), "--slo-ms", str(SLO_MS), "--out", str(out)]
        with (tmp_path / "errors").open("w") as errors:
            client = subprocess.Popen([sys.executable, "-m", "client", *command], env=environment(), stderr=errors)
        stack.enter_context(ended_at_last(client))
        until(lambda: counted(",ON_TIME,") >= 10, "no frame was answered")
        psutil.Process(relay.pid).suspend()
        until(lambda: psutil.Process(relay.pid).status() == psutil.STATUS_STOPPED, "it does not stop")
        began_ns = time.monotonic_ns()
        until(lambda: "RECONNECTING" in (tmp_path / "errors").read_text(), "the outage was not noticed")
        lasted = counted(",SKIPPED,") + FPS * outage_s - 2 * FPS
        until(
            lambda: counted(",SKIPPED,") >= lasted,
            lambda: f"frames are captured all the time; the client said: {(tmp_path / 'errors').read_text()}",
            outage_s + PATIENCE_S / 2,
        )
        ended_ns = time.monotonic_ns()
        before = counted(",ON_TIME,")
        psutil.Process(relay.pid).resume()
        until(lambda: counted(",ON_TIME,") >= before + 15, (tmp_path / "errors").read_text)
        client.terminate()
        assert client.wait(100) == 0

    rows = list(read_rows(log, FrameRow))
    assert sorted(row.frame_id for row in rows) == list(range(1, len(rows) + 1)), "every captured frame once"
    slo_ns = SLO_MS * 1_000_000
    meanwhile = [row for row in rows if began_ns < row.capture_ts < ended_ns - slo_ns]
    assert len(meanwhile) > FPS * outage_s / 3
    assert {row.outcome for row in meanwhile} <= {Outcome.SKIPPED, Outcome.LOST, Outcome.DROPPED}
    stale = {row.frame_id for row in meanwhile}
    processed = [row for row in read_rows(server.out / "frame_stats.csv", ServerFrameRow) if row.prediction_time > 0.0]
    assert processed
    assert not stale & {row.frame_id for row in processed}, "nothing older than its deadline is processed"
    states = [line for line in (tmp_path / "errors").read_text().splitlines() if "client-0:" in line]
    assert any("RECONNECTING" in line for line in states[:1]), states
    assert any("READY" in line for line in states[1:]), states
