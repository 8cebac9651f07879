"""From what a user writes, a name or a path, to a trace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from moonjelly.errors import TraceError
from network_shaping import generator, traces
from network_shaping.traces import Trace

DEFAULT_SECONDS = 600
DOWNLOADED = {"wifi_trace": "jellyfish-wifi.txt", "lte_upload_trace": "jellyfish-lte-upload.txt"}
"""Jellyfish's names of its two recorded traces, and the files that ``download_data.sh`` gets."""
SHIPPED = Path(__file__).resolve().parent / "shipped"
"""One trace of every generator profile (seed 0), for programs other than ours."""
_CLONE = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """Where downloaded data lies: ``MOONJELLY_DATA``, by default ``../shared/data`` beside the clone."""
    return Path(os.environ.get("MOONJELLY_DATA", _CLONE.parent / "shared" / "data"))


def names() -> list[str]:
    """All names that :func:`resolve` knows."""
    return [*generator.PROFILES, "synthetic_trace", *DOWNLOADED]


def resolve(
    name_or_path: str | Path, seed: int = 0, seconds: int = DEFAULT_SECONDS, offset_s: float | None = 0.0
) -> Trace:
    """The trace that a user means.

    Args:
        name_or_path: a generator profile, ``synthetic_trace``, ``wifi_trace``, ``lte_upload_trace``, or a file.
        seed: of a generated trace and of a random offset.
        seconds: length of a generated trace.
        offset_s: where in the trace to begin; ``None``: at random, as each of Jellyfish's clients does.

    Raises:
        TraceError: neither a known name nor a readable file.
    """
    trace = _find(str(name_or_path), seed, seconds)
    if offset_s is None:
        offset_s = float(np.random.default_rng([seed, 1]).uniform(0.0, trace.duration_s))
    return trace.at_offset(offset_s)


def _find(name: str, seed: int, seconds: int) -> Trace:
    if name in generator.PROFILES:
        return generator.generate(generator.PROFILES[name], seconds, seed, name)
    if name == "synthetic_trace":
        return generator.synthetic()
    if name in DOWNLOADED:
        path = data_dir() / "traces" / DOWNLOADED[name]
        if not path.exists():
            raise TraceError(f"trace '{name}' needs {path}; run ./download_data.sh or set MOONJELLY_DATA")
        return traces.read(path)
    if not Path(name).exists():
        raise TraceError(f"'{name}' is neither a trace file nor one of the names {', '.join(names())}")
    return traces.read(Path(name))
