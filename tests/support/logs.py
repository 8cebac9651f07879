"""Small logs of runs, written by the library's own writers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from moonjelly.summary import ClientInfo, summarise, write_summary
from moonjelly.telemetry import CsvLog, FrameRow, ServerFrameRow, ShapingRow, read_rows
from moonjelly.types import Outcome

VARIANTS = ("yolov4-128", "yolov4-320", "yolov4-608")
MS = 1_000_000


def frame(client: int, number: int, outcome: Outcome, latency_ms: float, slo_ms: float = 100.0) -> FrameRow:
    """One captured frame; answered ones used the middle variant."""
    captured = 1_000 * MS + number * 66 * MS
    answered = outcome in (Outcome.ON_TIME, Outcome.LATE)
    return FrameRow(
        client_id=client,
        frame_id=number + 1,
        capture_ts=captured,
        send_ts=captured + MS if answered else None,
        recv_ts=captured + int(latency_ms * MS) if answered else None,
        outcome=outcome,
        reason="" if outcome is Outcome.ON_TIME else "because",
        e2e_latency=latency_ms if answered else None,
        slo_ms=slo_ms,
        desired_model=VARIANTS[number % 3] if answered else "",
        used_model=VARIANTS[1] if answered else "",
        next_model=VARIANTS[1] if answered else "",
        input_size=320 if answered else None,
        jpeg_quality=90 if answered else None,
        frame_wire_size=20_000 if answered else None,
        network_time=20.0 if answered else None,
        bandwidth_bps=8e6 + 1e5 * number,
        rtt_ms=1.0,
        encode_ms=1.0,
        queue_ms=1.0 if answered else None,
        infer_ms=12.0 if answered else None,
        server_ms=14.0 if answered else None,
        accuracy=0.3 if outcome is Outcome.ON_TIME else 0.0,
        source_frame=number,
    )


def server_frame(session: int, number: int, outcome: Outcome, scale: float) -> ServerFrameRow:
    """The same frame as the server saw it."""
    return ServerFrameRow(
        session, number + 1, number, 20.0 * scale, 0.5 * scale, 1.5, 2.0 * scale, 12.0, 0.5, 8e6, 8e6, 20_000, 300, 1,
        VARIANTS[1], 0, 1, outcome, "",
    )  # fmt: skip


def write_run(directory: Path, outcomes: dict[int, list[Outcome]], *, seed: int = 0, record: dict[str, Any]) -> None:
    """A run's folder as the experiment manager leaves it; the clients opened their sessions in reverse order."""
    rng = np.random.default_rng(seed)
    logs = directory / "logs"
    server = CsvLog(logs / "server" / "frame_stats.csv", ServerFrameRow)
    links = CsvLog(logs / "network" / "client0" / "shaping.csv", ShapingRow)
    for client, mine in outcomes.items():
        session = 10 - client
        log = CsvLog(logs / "client" / f"host_{client}" / "frame_stats.csv", FrameRow)
        for number, outcome in enumerate(mine):
            latency_ms = 130.0 if outcome is Outcome.LATE else float(rng.uniform(30, 95))
            log.write(frame(client, number, outcome, latency_ms))
            server.write(server_frame(session, number, outcome, float(rng.uniform(0.5, 1.5))))
        log.close()
        told = {"client_id": client, "session_id": session}
        (logs / "client" / f"host_{client}" / "client.json").write_text(json.dumps(told), encoding="utf-8")
        for second in range(3):
            links.write(ShapingRow(1_000 * MS * (second + 1), f"client-{client}", 10.0 - second, 10.0 - second, 1.0))
    server.close()
    links.close()
    rows = [
        row
        for client in outcomes
        for row in read_rows(logs / "client" / f"host_{client}" / "frame_stats.csv", FrameRow)
    ]
    infos = {client: ClientInfo(100.0, 15.0, f"client-{client}") for client in outcomes}
    write_summary(directory / "summary.json", summarise(rows, (), clients=infos))
    (directory / "run.json").write_text(json.dumps(record), encoding="utf-8")


def write_sweep(out: Path) -> Path:
    """A sweep of two policies, two settings and two repetitions, and one run that failed; its ``runs.csv``."""
    from experiment_manager.table import write_table

    ok, late, lost = Outcome.ON_TIME, Outcome.LATE, Outcome.LOST
    number = 0
    for policy, spoilt in (("multiset", [late]), ("sa-dp", [late, lost, lost])):
        for setting, count in (("slo-75_fps-15", 1), ("slo-150_fps-15", 2)):
            for repetition in range(2):
                name = f"synthetic_trace/{policy}/clients-{count}_{setting}_synthetic/iter-{repetition}"
                outcomes = {client: [ok] * 30 + spoilt * (repetition + 1) + [ok] * 10 for client in range(count)}
                number += 1
                write_run(out / name, outcomes, seed=number, record=record(name, policy, setting, count, repetition))
    name = "synthetic_trace/sa-dp/clients-4_slo-75_fps-15_synthetic/iter-0"
    (out / name).mkdir(parents=True)
    told = {**record(name, "sa-dp", "slo-75_fps-15", 4, 0), "state": "failed", "reason": "the server <was> gone"}
    (out / name / "run.json").write_text(json.dumps(told), encoding="utf-8")
    return write_table(out)[0]


def record(name: str, policy: str, setting: str, count: int, repetition: int) -> dict[str, Any]:
    """What ``run.json`` says of a run."""
    return {
        "name": name,
        "state": "done",
        "reason": "",
        "trace": "synthetic_trace",
        "policy": policy,
        "source": "synthetic",
        "setting": setting,
        "devices": [{"client_id": client, "slo_ms": 75.0, "fps": 15.0, "machine": ""} for client in range(count)],
        "repetition": repetition,
        "seed": 1000 * repetition,
        "conditions": {"zoo": "yolov4", "seconds": 3.0},
    }
