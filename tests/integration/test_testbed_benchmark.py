"""What ``benchmarks/testbed.py`` compares a live run with meets the same links at the same instants."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.testbed import KIND, ZOO, as_live, begun_ns, captured, twin
from moonjelly.profiles import ProfileOptions
from moonjelly.repository import load_zoo
from moonjelly.types import Outcome
from network_shaping import catalogue
from tests.support.logs import write_run

CLIENTS, FRAMES = 2, 60
FPS = 1e3 / 66
"""Of what ``write_run`` writes."""
SECONDS, WARMUP_S = 1.0, 3.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    record = {"state": "done", "conditions": {"warmup_s": WARMUP_S}}
    outcomes = [Outcome.SKIPPED if number % 7 == 3 else Outcome.ON_TIME for number in range(FRAMES)]
    write_run(tmp_path, dict.fromkeys(range(CLIENTS), outcomes), record=record)
    return tmp_path


def test_a_simulated_client_captures_every_frame_where_the_live_one_did(run: Path) -> None:
    row = pd.Series({"clients": CLIENTS, "fps": FPS, "slo_ms": 100.0, "seed": 5, "trace": "subway"})
    workload = twin(run, row, SECONDS, WARMUP_S, load_zoo(ZOO).profile(KIND, ProfileOptions(percentile=99.0)))
    begun, frames = begun_ns(run), captured(run)
    for spec in workload.clients:
        live = catalogue.resolve("subway", 5 + spec.client_id, offset_s=None)
        for number, capture_ns in enumerate(frames[spec.client_id]["capture_ts"]):
            there = live.rate_bps((capture_ns - begun[spec.client_id]) / 1e9)
            assert spec.trace.rate_bps(spec.captured_ns(number) / 1e9) == there


def test_frames_keep_their_sizes_and_those_that_were_not_sent_take_the_last_one(run: Path) -> None:
    row = pd.Series({"clients": CLIENTS, "fps": FPS, "slo_ms": 100.0, "seed": 5, "trace": "subway"})
    spec = twin(run, row, SECONDS, WARMUP_S, load_zoo(ZOO).profile(KIND, ProfileOptions(percentile=99.0))).clients[0]
    frames = captured(run)[0]
    sent = frames["frame_wire_size"].notna()
    frames.loc[sent, "frame_wire_size"] *= frames.loc[sent].index + 1.0
    factors = as_live(spec, frames, "subway", 5, begun_ns(run)[0]).size_factor
    expected = [number if number % 7 == 3 else number + 1 for number in range(spec.frames)]
    assert factors / factors[0] == pytest.approx(expected)
