"""From what a user writes, a name or a path, to a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moonjelly.errors import ConfigError, TraceError, ZooError
from network_shaping import generator, traces
from network_shaping.traces import Trace

DEFAULT_SECONDS = 600
DOWNLOADED = {"wifi_trace": "jellyfish-wifi.txt", "lte_upload_trace": "jellyfish-lte-upload.txt"}
"""Jellyfish's names of its two recorded traces, and the files that ``download_data.sh`` gets."""
SHIPPED = Path(__file__).resolve().parent / "shipped"
"""One trace of every generator profile (seed 0), for programs other than ours."""


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


def resolve_at(text: str, seed: int, seconds: int = DEFAULT_SECONDS) -> Trace:
    """``TRACE``, ``TRACE@OFFSET_S``, ``TRACE@random`` or, with a seed of its own, ``TRACE@random:SEED``.

    Raises:
        ConfigError: the offset is not a number.
        TraceError: see :func:`resolve`.
    """
    name, at, offset = text.rpartition("@")
    if not at:
        return resolve(text, seed, seconds)
    random, _, own = offset.partition(":")
    try:
        if random == "random":
            return resolve(name, int(own) if own else seed, seconds, None)
        return resolve(name, seed, seconds, float(offset))
    except ValueError:
        raise ConfigError(
            f"'{offset}' in '{text}' is not an offset; write seconds, random or random:SEED after '@'"
        ) from None


def at_random(text: str, seed: int | None = None) -> str:
    """The same trace from a random place, as each of Jellyfish's clients begins, unless it says where to begin."""
    own = "" if seed is None else f":{seed}"
    return text if "@" in text else f"{text}@random{own}"


def _find(name: str, seed: int, seconds: int) -> Trace:
    if name in generator.PROFILES:
        return generator.generate(generator.PROFILES[name], seconds, seed, name)
    if name == "synthetic_trace":
        return generator.synthetic()
    if name in DOWNLOADED:
        return traces.read(_downloaded(DOWNLOADED[name], name))
    if not Path(name).exists():
        raise TraceError(f"'{name}' is neither a trace file nor one of the names {', '.join(names())}")
    return traces.read(Path(name))


def _downloaded(file: str, name: str) -> Path:
    from moonjelly.repository import data_file  # heavy, and only these traces need it

    try:
        return data_file(f"traces/{file}")
    except ZooError as fault:
        raise TraceError(f"trace '{name}': {fault}") from None
