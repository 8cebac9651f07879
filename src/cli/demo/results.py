"""What a run left behind, summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cli.demo.annotate import Picture, annotate
from cli.demo.settings import DemoSettings, host_directory, source_of
from cli.machine import machine, versions
from client import golden
from moonjelly.detection import MatchCounts
from moonjelly.repository import load_zoo
from moonjelly.summary import F1, ClientInfo, summarise, write_summary
from moonjelly.telemetry import FrameRow, PlanRow, read_rows
from plots.frames import read_frames


@dataclass(frozen=True)
class Results:
    """The figures of a run and what its report shows.

    Attributes:
        summary: the object of ``summary.json``.
        frames: client id to its frames.
        variants: names in increasing accuracy.
        pictures: answered frames with their boxes.
    """

    summary: dict[str, Any]
    frames: Mapping[int, pd.DataFrame]
    variants: tuple[str, ...]
    pictures: tuple[Picture, ...]


def collect(settings: DemoSettings) -> Results:
    """Read the logs, compare with the golden model, write ``summary.json``."""
    zoo = load_zoo(settings.zoo)
    rows: list[FrameRow] = []
    infos: dict[int, ClientInfo] = {}
    quality: dict[int, F1] = {}
    answered, every = MatchCounts(), MatchCounts()
    for one in settings.client_settings():
        infos[one.index] = ClientInfo(one.slo_ms, one.fps, one.name, nominal_frames=int(settings.seconds * one.fps))
        log = host_directory(settings.out, one.index) / "frame_stats.csv"
        if not log.exists():
            continue
        rows.extend(read_rows(log, FrameRow))
        score = golden.score(log.parent, source_of(settings, one), settings.zoo)
        quality[one.index] = F1(score.answered.f1, score.every.f1)
        answered += score.answered
        every += score.every
    plans = settings.out / "logs" / "server" / "plans.csv"
    summary = summarise(
        rows,
        read_rows(plans, PlanRow) if plans.exists() else (),
        clients=infos,
        f1=F1(answered.f1, every.f1) if quality else None,
        client_f1=quality,
        versions=versions(),
        machine={name: str(value) for name, value in machine().items()},
    )
    write_summary(settings.out / "summary.json", summary)
    frames = {one: read_frames(host_directory(settings.out, one) / "frame_stats.csv") for one in quality}
    return Results(
        summary.to_json(),
        {one: table for one, table in frames.items() if len(table)},
        tuple(variant.name for variant in zoo.variants),
        annotate(settings, zoo.classes),
    )
