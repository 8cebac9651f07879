"""Settles a run's accounts: from every client's logs to ``summary.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.machine import machine, versions
from client.pacing import ticks_after
from moonjelly.detection import MatchCounts
from moonjelly.summary import F1, ClientInfo, Summary, after_warmup, summarise, write_summary
from moonjelly.telemetry import FrameRow, PlanRow, read_rows
from moonjelly.units import NS_PER_S


@dataclass(frozen=True)
class Participant:
    """One client of a run and where its logs are.

    Attributes:
        client_id: as in its rows.
        name: for people.
        slo_ms: deadline.
        fps: nominal rate.
        source: what it saw.
        directory: holds its ``frame_stats.csv`` and ``detections.json``.
    """

    client_id: int
    name: str
    slo_ms: float
    fps: float
    source: str
    directory: Path

    @property
    def frame_log(self) -> Path:
        """One row per captured frame."""
        return self.directory / "frame_stats.csv"


@dataclass(frozen=True, slots=True)
class _Reception:
    """What is read of a row of the server's ``frame_stats.csv``."""

    recv_ts: int


def settle(
    participants: Sequence[Participant],
    *,
    zoo: str,
    seconds: float | None,
    plans: Path,
    into: Path,
    score: bool = True,
    warmup_s: float = 0.0,
) -> Summary:
    """Sum a run up and write ``into/summary.json``.

    Args:
        participants: every client, also one that wrote nothing.
        zoo: whose best variant is the golden model.
        seconds: nominal length after the warm-up: a client should have captured the frames of that time; ``None`` of a
            run that the user cut short: those that were captured are all.
        plans: the server's ``plans.csv``, beside its ``frame_stats.csv``; may be missing.
        into: folder of the run.
        score: compare detections with the golden model's; ``False`` where there are none (simulated executors).
        warmup_s: frames captured less than that after a client's first one do not count, nor plans of that time.
    """
    rows: list[FrameRow] = []
    infos: dict[int, ClientInfo] = {}
    quality: dict[int, F1] = {}
    answered, every = MatchCounts(), MatchCounts()
    for one in participants:
        nominal_frames = None if seconds is None else ticks_after(warmup_s, seconds, one.fps)
        infos[one.client_id] = ClientInfo(one.slo_ms, one.fps, one.name, nominal_frames)
        if not one.frame_log.exists():
            continue
        rows.extend(after_warmup(list(read_rows(one.frame_log, FrameRow)), warmup_s))
        if score:
            from client import golden  # video and models take seconds to import; simulated runs have no detections

            found = golden.score(one.directory, one.source, zoo, warmup_s=warmup_s)
            quality[one.client_id] = F1(found.answered.f1, found.every.f1)
            answered += found.answered
            every += found.every
    summary = summarise(
        rows,
        _counted_plans(plans, warmup_s),
        clients=infos,
        f1=F1(answered.f1, every.f1) if quality else None,
        client_f1=quality,
        versions=versions(),
        machine={name: str(value) for name, value in machine().items()},
    )
    write_summary(into / "summary.json", summary)
    return summary


def _counted_plans(plans: Path, warmup_s: float) -> list[PlanRow]:
    """Plans adopted while counted frames came, by the server's clock: none for clients that register or leave."""
    frames = plans.with_name("frame_stats.csv")
    received = [row.recv_ts for row in read_rows(frames, _Reception)] if frames.exists() else []
    if not received or not plans.exists():
        return []
    begin, end = min(received) + round(warmup_s * NS_PER_S), max(received)
    return [row for row in read_rows(plans, PlanRow) if begin <= row.ts <= end]
