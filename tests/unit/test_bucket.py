"""How much may wait before a tc link's bucket."""

from __future__ import annotations

import pytest

from moonjelly.errors import ConfigError
from network_shaping.bucket import DEFAULT_BURST_BYTES, DEFAULT_QUEUE_BYTES, MIN_BURST_BYTES, Bucket


def test_a_queue_of_so_many_bytes_is_that_at_any_rate() -> None:
    for bucket in (Bucket(), Bucket.of(None, None, None), Bucket.of(DEFAULT_BURST_BYTES, DEFAULT_QUEUE_BYTES, None)):
        assert bucket.limit_bytes(1e3) == bucket.limit_bytes(1e9) == DEFAULT_QUEUE_BYTES + DEFAULT_BURST_BYTES


@pytest.mark.parametrize(("rate_bps", "limit_bytes"), [(20e6, 125_000 + 5_000), (2e6, 12_500 + 5_000), (0.0, 5_000)])
def test_a_latency_is_what_the_rate_carries_in_it_and_the_burst(rate_bps: float, limit_bytes: int) -> None:
    """tc's formula for ``latency`` (man tc-tbf)."""
    assert Bucket.of(None, None, 50.0).limit_bytes(rate_bps) == limit_bytes


def test_at_the_lowest_rate_a_packet_finds_room() -> None:
    ethernet_bytes = 1_514
    assert Bucket.of(MIN_BURST_BYTES, None, 1.0).limit_bytes(8.0) >= ethernet_bytes


def test_the_kernel_counts_in_32_bits() -> None:
    assert Bucket.of(None, None, 60_000.0).limit_bytes(30e9) == 2**32 - 1


def test_one_limit_is_enough() -> None:
    with pytest.raises(ConfigError, match=r"a queue of 9000 bytes and one of 50 ms are asked for; .* not both"):
        Bucket.of(None, 9_000, 50.0)
