"""The network as a client and the server see it: transfer times, bandwidth, round trip, clock offset, frame sizes.

Pure steps ``(state, sample) -> state``: no clock is read here, instants come in with the samples. Only
:class:`ClockOffset` converts between the instants of two hosts.
"""

from moonjelly.network.baselines import ErrorBasedFilter, HarmonicMean, raw_bandwidth_bps
from moonjelly.network.clock_offset import ClockOffset, captured_at_server
from moonjelly.network.exchange import Exchange
from moonjelly.network.frame_sizes import DEFAULT_QUALITY, LEARN_SIZE_EVERY_NS, FrameSizes, prior_bytes
from moonjelly.network.frame_sizes import observe as observe_size
from moonjelly.network.link import LinkEstimate, LinkState, estimate, observe
from moonjelly.network.round_trip import SETTLING_PINGS, ping_pause_ns
from moonjelly.network.transfer import (
    DEFAULT_RESPONSE_BYTES,
    FIXED_OVERHEAD_MS,
    INITIAL_BANDWIDTH_BPS,
    answer_by_ns,
    budgets,
    left_ms,
    observe_preparation,
    observe_response,
    planned_budgets,
)

__all__ = [
    "DEFAULT_QUALITY",
    "DEFAULT_RESPONSE_BYTES",
    "FIXED_OVERHEAD_MS",
    "INITIAL_BANDWIDTH_BPS",
    "LEARN_SIZE_EVERY_NS",
    "SETTLING_PINGS",
    "ClockOffset",
    "ErrorBasedFilter",
    "Exchange",
    "FrameSizes",
    "HarmonicMean",
    "LinkEstimate",
    "LinkState",
    "answer_by_ns",
    "budgets",
    "captured_at_server",
    "estimate",
    "left_ms",
    "observe",
    "observe_preparation",
    "observe_response",
    "observe_size",
    "ping_pause_ns",
    "planned_budgets",
    "prior_bytes",
    "raw_bandwidth_bps",
]
