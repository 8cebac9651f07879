"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real videos, images, weights and traces; see the README for how to get them."""
    data = Path(os.environ.get("MOONJELLY_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "SHA256SUMS").exists():
        pytest.skip(f"real data absent: {data} has no SHA256SUMS; run ./download_data.sh or set MOONJELLY_DATA")
    return data
