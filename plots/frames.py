"""Frame logs as tables: what the figures of a run start from."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from moonjelly.errors import MoonjellyError
from moonjelly.summary import ANSWERED
from moonjelly.types import Outcome
from plots.stages import STAGES


class LogError(MoonjellyError):
    """A log that is missing or lacks a column."""

    exit_code = 2


DEFAULT_ZOO = "synthetic"
_NEEDED = ("client_id", "frame_id", "capture_ts", "outcome", "e2e_latency", "slo_ms", "used_model", "bandwidth_bps")


def find_frame_logs(run: Path) -> list[Path]:
    """Every client's ``frame_stats.csv`` below a run's directory, in order of path.

    Raises:
        LogError: there is none.
    """
    found = sorted(path for path in run.rglob("frame_stats.csv") if _is_clients(path.relative_to(run)))
    if not found:
        raise LogError(f"no client frame_stats.csv below {run}; give the directory of a run")
    return found


def read_frames(path: Path) -> pd.DataFrame:
    """One client's frames in order of capture, with ``seconds`` since its first capture.

    Raises:
        LogError: the file is empty or lacks a column.
    """
    try:
        frames = pd.read_csv(path)
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError) as fault:
        raise LogError(f"{path} cannot be read: {fault}") from None
    missing = [name for name in _NEEDED if name not in frames.columns]
    if missing:
        raise LogError(f"{path} lacks the columns {', '.join(missing)}; was it written by a moonjelly client?")
    frames = frames.sort_values("capture_ts").reset_index(drop=True)
    frames["seconds"] = (frames["capture_ts"] - frames["capture_ts"].min()) / 1e9
    return frames


def answered_of(frames: pd.DataFrame) -> pd.DataFrame:
    """Frames that were answered with detections: a drop comes back, too, but has no latency to speak of."""
    return frames[frames["outcome"].isin([Outcome.ON_TIME.value, Outcome.LATE.value])]


def read_server(run: Path) -> pd.DataFrame:
    """The server's frame log of a run, answered frames only.

    Raises:
        LogError: it is missing, empty or lacks a column.
    """
    path = run / "logs" / "server" / "frame_stats.csv"
    try:
        frames = pd.read_csv(path)
    except (OSError, pd.errors.EmptyDataError, pd.errors.ParserError) as fault:
        raise LogError(f"{path} cannot be read: {fault}") from None
    if missing := [name for name in ("outcome", *STAGES.values()) if name not in frames.columns]:
        raise LogError(f"{path} lacks the columns {', '.join(missing)}; was it written by a moonjelly server?")
    return frames[frames["outcome"].isin([outcome.value for outcome in ANSWERED])]


def read_links(run: Path) -> dict[int, pd.DataFrame]:
    """Client id to the changes of its link's rate, in Mbit/s; empty where nothing was shaped."""
    tables = [pd.read_csv(path) for path in sorted((run / "logs" / "network").rglob("shaping.csv"))]
    found = {}
    for link, mine in pd.concat(tables).groupby("link") if tables else ():
        number = str(link).rpartition("-")[2]
        if str(link).startswith("client-") and number.isdigit():
            found[int(number)] = mine.sort_values("ts").reset_index(drop=True)
    return found


def read_run(run: Path) -> dict[int, pd.DataFrame]:
    """Client id to its frames, for every client of a run that captured at least one frame."""
    tables = (read_frames(path) for path in find_frame_logs(run))
    return {int(frames["client_id"].iloc[0]): frames for frames in tables if len(frames)}


def read_zoo(run: Path) -> str:
    """Name of the zoo that a run of a sweep was served with; the default zoo where the run does not say."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return DEFAULT_ZOO
    return str(record.get("conditions", {}).get("zoo", DEFAULT_ZOO))


def _is_clients(path: Path) -> bool:
    """Not the server's log, and not of an attempt that was given up."""
    return "server" not in path.parts and not any(part.startswith("attempt-") for part in path.parts)
