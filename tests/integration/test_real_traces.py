"""The readers on the recorded traces: the statistics that the generator was fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from network_shaping import catalogue, traces


@pytest.mark.parametrize(
    ("name", "mean_mbit", "p5", "p95", "variation"),
    [
        ("jellyfish-wifi.txt", 51.9, 18.7, 77.4, 0.32),
        ("jellyfish-lte-upload.txt", 15.2, 7.3, 25.4, 0.35),
        ("mahimahi-tmobile-lte-short.up", 13.3, 2.5, 27.8, 0.60),
        ("mahimahi-verizon-lte-short.up", 5.95, 1.2, 11.5, 0.52),
        ("nyu-mets-7Train1.csv", 6.8, 0.7, 18.2, 0.81),
        ("nyu-mets-bus57.csv", 7.2, 1.3, 15.3, 0.59),
    ],
)
def test_statistics(data_dir: Path, name: str, mean_mbit: float, p5: float, p95: float, variation: float) -> None:
    rates = np.array(traces.read(data_dir / "traces" / name).rates_bps) / 1e6
    assert rates.mean() == pytest.approx(mean_mbit, rel=0.03)
    assert np.percentile(rates, 5) == pytest.approx(p5, rel=0.1)
    assert np.percentile(rates, 95) == pytest.approx(p95, rel=0.05)
    assert rates.std() / rates.mean() == pytest.approx(variation, abs=0.03)


def test_recorded_outages_are_outages(data_dir: Path) -> None:
    trace = traces.read(data_dir / "traces" / "nyu-mets-bus62.csv")
    assert 0.0 in trace.rates_bps


def test_jellyfish_s_names(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONJELLY_DATA", str(data_dir))
    assert len(catalogue.resolve("wifi_trace").rates_bps) == 200
    assert len(catalogue.resolve("lte_upload_trace").rates_bps) == 199
