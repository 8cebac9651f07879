from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from moonjelly.summary import F1, ClientInfo, summarise, write_summary
from moonjelly.telemetry import SCHEMA_VERSION, FrameRow, PlanRow, read_record
from moonjelly.types import Outcome

INFO = ClientInfo(slo_ms=100.0, fps=10.0, name="gate")


def row(frame_id: int, outcome: Outcome, latency_ms: float | None = None, client_id: int = 1) -> FrameRow:
    sent = outcome not in (Outcome.SKIPPED,)
    return FrameRow(
        client_id=client_id,
        frame_id=frame_id,
        capture_ts=frame_id * 100,
        send_ts=frame_id * 100 + 1 if sent else None,
        recv_ts=None,
        outcome=outcome,
        reason="",
        e2e_latency=latency_ms,
        slo_ms=100.0,
        desired_model="v",
        used_model="v",
        next_model="v",
        input_size=64,
        jpeg_quality=90,
        frame_wire_size=1000,
        network_time=None,
        bandwidth_bps=None,
        rtt_ms=None,
        encode_ms=None,
        queue_ms=None,
        infer_ms=None,
        server_ms=None,
        accuracy=0.4 if outcome is Outcome.ON_TIME else 0.0,
    )


def plan(run: int, cpu_ms: float, switches: int = 0) -> PlanRow:
    return PlanRow(run, 0, "interval", "multiset", 1, 0, "", "", cpu_ms, switches, False, 0.4)


def test_counts_every_outcome_once() -> None:
    rows = [row(index, outcome, 50.0) for index, outcome in enumerate(Outcome)]
    summary = summarise(rows, [], clients={1: INFO})
    assert summary.frames_captured == len(Outcome)
    assert summary.frames_sent == len(Outcome) - 1
    for outcome in Outcome:
        assert getattr(summary, outcome.value.lower()) == 1
    assert summary.miss_rate == pytest.approx(1 - 1 / len(Outcome))


def test_a_frame_never_captured_is_a_miss() -> None:
    info = dataclasses.replace(INFO, nominal_frames=10)
    summary = summarise([row(index, Outcome.ON_TIME, 20.0) for index in range(8)], [], clients={1: info})
    assert (summary.frames_captured, summary.skipped, summary.frames_sent) == (10, 2, 8)
    assert summary.miss_rate == pytest.approx(0.2)
    assert summary.effective_accuracy == pytest.approx(0.32)


def test_latency_is_over_answered_frames_only() -> None:
    rows = [row(1, Outcome.ON_TIME, 10.0), row(2, Outcome.LATE, 130.0), row(3, Outcome.DROPPED, 99.0)]
    latency = summarise(rows, [], clients={1: INFO}).latency_ms
    assert (latency.p50, latency.max) == (70.0, 130.0)


def test_nothing_answered_has_no_latency_and_no_clients_no_misses() -> None:
    assert summarise([row(1, Outcome.LOST)], [], clients={1: INFO}).latency_ms.p50 is None
    empty = summarise([], [], clients={})
    assert (empty.frames_captured, empty.miss_rate, empty.plans.ms_p99) == (0, 0.0, None)
    assert empty.plans.latency_factor_mean is None


def test_the_longest_burst_is_of_one_client() -> None:
    good, bad = Outcome.ON_TIME, Outcome.DROPPED
    first = [row(index, outcome, 1.0, 1) for index, outcome in enumerate((bad, good, bad, bad))]
    second = [row(index, bad, None, 2) for index in range(3)]
    summary = summarise([*reversed(first), *second], [], clients={1: INFO, 2: INFO})
    assert [client.longest_miss_burst for client in summary.clients] == [2, 3]
    assert summary.longest_miss_burst == 3


def test_plans_and_quality_are_passed_through() -> None:
    summary = summarise(
        [row(0, Outcome.ON_TIME, 10.0)],
        [plan(0, 4.0, 2), dataclasses.replace(plan(1, 2.0, 1), latency_factor=1.5)],
        clients={1: INFO},
        f1=F1(0.9, 0.8),
        client_f1={1: F1(0.7, 0.6)},
    )
    assert (summary.plans.count, summary.plans.ms_p50, summary.plans.switches) == (2, 3.0, 3)
    assert summary.plans.latency_factor_mean == pytest.approx(1.75)
    assert (summary.f1, summary.effective_f1, summary.clients[0].effective_f1) == (0.9, 0.8, 0.6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="client 2, which is not in the run"):
        summarise([row(0, Outcome.LOST, client_id=2)], [], clients={1: INFO})
    with pytest.raises(ValueError, match="more than one outcome"):
        summarise([row(0, Outcome.LOST), row(0, Outcome.LATE)], [], clients={1: INFO})
    summary = summarise([row(0, Outcome.LOST)], [], clients={1: INFO})
    with pytest.raises(ValueError, match="do not add up to 1 captured"):
        dataclasses.replace(summary, on_time=1)
    with pytest.raises(ValueError, match="'late' is 1, its clients' add up to 0"):
        dataclasses.replace(summary, lost=0, late=1)


def test_the_file_has_every_documented_key(tmp_path: Path) -> None:
    path = tmp_path / "run" / "summary.json"
    write_summary(path, summarise([row(0, Outcome.ON_TIME, 10.0)], [], clients={1: INFO}, machine={"cpu": "x"}))
    content = json.loads(path.read_text())
    shared = {
        "frames_sent", "frames_captured", "on_time", "late", "skipped", "rejected", "dropped", "lost", "failed",
        "miss_rate", "f1", "effective_f1", "effective_accuracy", "latency_ms",
    }  # fmt: skip
    assert shared | {"clients", "plans", "versions", "machine"} <= set(content)
    assert content["schema_version"] == SCHEMA_VERSION
    assert read_record(path) == content
    assert shared | {"slo_ms", "fps", "longest_miss_burst"} <= set(content["clients"][0])
    assert set(content["latency_ms"]) == {"p50", "p90", "p99", "max"}
    assert set(content["plans"]) == {"count", "ms_p50", "ms_p99", "switches", "latency_factor_mean"}
    assert not list(path.parent.glob("*.part"))
