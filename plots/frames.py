"""Frame logs as tables: what the figures of a run start from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from moonjelly.errors import MoonjellyError, cause
from moonjelly.summary import ANSWERED
from moonjelly.telemetry import EARLIER
from moonjelly.types import Outcome
from plots.stages import STAGES


class LogError(MoonjellyError):
    """A log that is missing or lacks a column."""

    exit_code = 2


DEFAULT_ZOO = "synthetic"
RECORD = "run.json"
"""Says of a sweep's run what it was and how it ended."""
_SWEEP_DEPTH = 4
"""Folders from a sweep to a run: trace, policy, setting, repetition."""
_NEEDED = ("client_id", "frame_id", "capture_ts", "outcome", "e2e_latency", "slo_ms", "used_model", "bandwidth_bps")


def find_run(place: Path, trace: str = "") -> Path:
    """The run that a folder stands for: itself, or the newest one with a valid result below a sweep's folder.

    Folders on the way may be symbolic links.

    Args:
        place: folder of a run, of a sweep, or of one of a sweep's traces, policies or settings.
        trace: of a sweep, only runs over this trace.

    Raises:
        LogError: there is no such folder, or no such run in it.
    """
    if not place.is_dir():
        raise LogError(f"there is no folder {place}; 'moonjelly experiment run' and 'demo' make some")
    if (place / RECORD).exists():
        return place
    found = [path for depth in range(_SWEEP_DEPTH, 0, -1) for path in place.glob("*/" * depth + RECORD)]
    records = {path.parent: _read_record(path) for path in found if _is_kept(path.relative_to(place))}
    if not records:
        return place
    valid = {run: record for run, record in records.items() if record.get("state") == "done"}
    if not valid:
        raise LogError(f"none of the {len(records)} runs below {place} has a valid result; their {RECORD} say why")
    wanted = [run for run, record in valid.items() if trace in ("", record.get("trace"))]
    if not wanted:
        others = ", ".join(sorted({str(record.get("trace")) for record in valid.values()}))
        raise LogError(f"no run over {trace} below {place}; there are runs over {others}: name one with --trace")
    return max(wanted, key=lambda run: (run / RECORD).stat().st_mtime_ns)


def find_frame_logs(run: Path) -> list[Path]:
    """Every client's ``frame_stats.csv`` below a run's directory, in order of path.

    Raises:
        LogError: there is none.
    """
    found = sorted(path for path in run.rglob("frame_stats.csv") if _is_clients(path.relative_to(run)))
    if not found:
        raise LogError(f"no client frame_stats.csv below {run}; give the directory of a run")
    return found


def read_csv(path: Path, needed: Iterable[str], writer: str) -> pd.DataFrame:
    """A log as a table.

    Args:
        path: of the file.
        needed: columns that it must have.
        writer: command that writes such a file, for the message.

    Raises:
        LogError: it is missing, empty or no CSV file, or lacks a column.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise LogError(f"{path} cannot be read: {cause(fault)}; 'moonjelly {writer}' writes one") from None
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise LogError(f"{path} lacks the columns {', '.join(missing)}; 'moonjelly {writer}' writes one")
    return table


def read_frames(path: Path) -> pd.DataFrame:
    """One client's frames in order of capture, with ``seconds`` since its first capture.

    Raises:
        LogError: the file is empty or lacks a column.
    """
    frames = read_csv(path, _NEEDED, "client")
    frames = frames.sort_values("capture_ts").reset_index(drop=True)
    frames["seconds"] = (frames["capture_ts"] - frames["capture_ts"].min()) / 1e9
    return frames


def answered_of(frames: pd.DataFrame) -> pd.DataFrame:
    """Frames that were answered with detections: a drop comes back, too, but has no latency to speak of."""
    return frames[frames["outcome"].isin([Outcome.ON_TIME.value, Outcome.LATE.value])]


def read_server(run: Path) -> pd.DataFrame:
    """The server's frame log of a run, answered frames only, without those of the warm-up.

    ``client`` names whose frame it was: the server numbers sessions, and each client's ``client.json`` knows its own.

    Raises:
        LogError: it is missing, empty or lacks a column.
    """
    path = run / "logs" / "server" / "frame_stats.csv"
    frames = read_csv(path, ("client_id", "frame_id", "outcome", *STAGES.values()), "serve")
    clients = _clients_of_sessions(run)
    frames["client"] = [
        f"client {clients[session]}" if session in clients else f"session {session}" for session in frames["client_id"]
    ]
    if _warmup_s(run):
        mine = read_run(run)
        counted = {(f"client {client}", frame) for client, table in mine.items() for frame in table["frame_id"]}
        frames = frames[[pair in counted for pair in zip(frames["client"], frames["frame_id"], strict=True)]]
    return frames[frames["outcome"].isin([outcome.value for outcome in ANSWERED])]


def read_links(run: Path) -> dict[int, pd.DataFrame]:
    """Client id to the changes of its link's rate, in Mbit/s; empty where nothing was shaped.

    Raises:
        LogError: a log is empty or lacks a column.
    """
    logs = sorted((run / "logs" / "network").rglob("shaping.csv"))
    tables = [read_csv(path, ("link", "ts"), "shape") for path in logs if _is_kept(path.relative_to(run))]
    found = {}
    for link, mine in pd.concat(tables).groupby("link") if tables else ():
        number = str(link).rpartition("-")[2]
        if str(link).startswith("client-") and number.isdigit():
            found[int(number)] = mine.sort_values("ts").reset_index(drop=True)
    return found


def read_run(run: Path) -> dict[int, pd.DataFrame]:
    """Client id to its frames, for every client of a run that captured at least one frame after the warm-up."""
    warmup_s = _warmup_s(run)
    tables = (_counted(read_frames(path), warmup_s) for path in find_frame_logs(run))
    return {int(frames["client_id"].iloc[0]): frames for frames in tables if len(frames)}


def read_zoo(run: Path) -> str:
    """Name of the zoo that a run of a sweep was served with; the default zoo where the run does not say."""
    return str(_conditions(run).get("zoo", DEFAULT_ZOO))


def _clients_of_sessions(run: Path) -> dict[int, int]:
    found = [path for path in sorted(run.rglob("client.json")) if _is_clients(path.relative_to(run))]
    return {int(told["session_id"]): int(told["client_id"]) for told in map(_read_record, found)}


def _counted(frames: pd.DataFrame, warmup_s: float) -> pd.DataFrame:
    """Frames after the warm-up, with ``seconds`` from its end."""
    counted = frames[frames["seconds"] >= warmup_s].reset_index(drop=True)
    counted["seconds"] -= warmup_s
    return counted


def _warmup_s(run: Path) -> float:
    return float(_conditions(run).get("warmup_s", 0.0))


def _conditions(run: Path) -> dict[str, Any]:
    record = _read_record(run / RECORD) if (run / RECORD).exists() else {}
    found: dict[str, Any] = record.get("conditions", {})
    return found


def _read_record(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise LogError(f"{path} cannot be read: {cause(fault)}") from None
    return told


def _is_clients(path: Path) -> bool:
    return "server" not in path.parts and _is_kept(path)


def _is_kept(path: Path) -> bool:
    """Whether a file is not of an attempt that was given up, nor of a run before the one that is here."""
    return not any(part.startswith(("attempt-", EARLIER)) for part in path.parts)
