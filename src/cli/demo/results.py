"""What a demo left behind, summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cli.accounts import Participant, settle
from cli.demo.annotate import Picture, annotate
from cli.demo.settings import DemoSettings, host_directory, source_of
from client.sources import is_live
from moonjelly.repository import load_zoo
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


def collect(settings: DemoSettings, cut_short: bool = False) -> Results:
    """Read the logs, compare with the golden model unless the source is live, write ``summary.json``.

    Args:
        settings: of the run.
        cut_short: the user has stopped it: what was not captured any more is not missed.
    """
    zoo = load_zoo(settings.zoo)
    live = is_live(settings.source)  # nobody can look at a camera's frames again
    participants = [
        Participant(
            one.index,
            one.name,
            one.slo_ms,
            one.fps,
            source_of(settings, one),
            host_directory(settings.out, one.index),
        )
        for one in settings.client_settings()
    ]
    summary = settle(
        participants,
        zoo=settings.zoo,
        seconds=None if cut_short else settings.seconds,
        plans=settings.out / "logs" / "server" / "plans.csv",
        into=settings.out,
        score=not live,
    )
    tables = {one.client_id: read_frames(one.frame_log) for one in participants if one.frame_log.exists()}
    return Results(
        summary.to_json(),
        {client_id: table for client_id, table in tables.items() if len(table)},
        tuple(variant.name for variant in zoo.variants),
        () if live else annotate(settings, zoo.classes),
    )
