"""Profiles: writing and reading lose nothing, and the monotone correction is the least that helps."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moonjelly import profiles
from moonjelly.profiles import ProfileOptions
from moonjelly.types import Variant

times = st.floats(0.01, 1e4, allow_nan=False)
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(times, min_size=width, max_size=width), min_size=1, max_size=5)
)


@given(tables)
def test_monotone_never_falls_never_lowers_and_repeats_to_itself(table: list[list[float]]) -> None:
    corrected = np.array(profiles.monotone(table))
    assert (np.diff(corrected, axis=0) >= 0).all()
    assert (np.diff(corrected, axis=1) >= 0).all()
    assert (corrected >= np.array(table)).all()
    assert profiles.monotone(corrected.tolist()) == profiles.monotone(table)


@given(tables)
def test_monotone_raises_no_entry_above_the_largest_before_it(table: list[list[float]]) -> None:
    raw, corrected = np.array(table), np.array(profiles.monotone(table))
    for row, column in np.ndindex(*raw.shape):
        assert corrected[row, column] == raw[: row + 1, : column + 1].max()


@given(tables, st.integers(0, 3), st.floats(1.0, 100.0))
def test_what_is_written_is_read(table: list[list[float]], warmup: int, percentile: float) -> None:
    variants = tuple(Variant(f"v{index}", "net", 32) for index in range(len(table)))
    with tempfile.TemporaryDirectory() as folder:
        kind = Path(folder) / "bench"
        for variant, row in zip(variants, table, strict=True):
            runs = {batch: [1e5] * warmup + [value] * 3 for batch, value in enumerate(row, start=1)}
            profiles.write_latency(profiles.latency_file(kind, variant.name), variant.name, runs)
        profiles.write_accuracy(kind / "accuracy.txt", {variant.name: 0.5 for variant in variants})
        options = ProfileOptions(percentile=percentile, warmup_rows=warmup)
        profile = profiles.read_profile(kind, variants, "variant", options)
    for read, wanted in zip(profile.latency_ms, profiles.monotone(table), strict=True):
        assert read == pytest.approx(wanted, rel=1e-3)  # files keep four digits
