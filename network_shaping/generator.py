"""Seeded synthetic traces with the statistics of real ones.

While the link is up the logarithm of its rate is a first-order autoregressive process; a two-state chain makes outages
of rate 0. Parameters were fitted on public WiFi, LTE, subway and commuter-rail traces (``docs/network.md``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moonjelly.units import BITS_PER_MBIT
from network_shaping.traces import Trace

FLOOR_BPS = 0.05 * BITS_PER_MBIT
"""A link that is up carries at least this."""
SYNTHETIC_MBIT = (20.0, 15.0, 10.0, 7.5, 10.0, 15.0, 20.0)
SYNTHETIC_STEP_S = 20.0


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """Parameters of one kind of link, at steps of one second.

    Attributes:
        median_bps: of the rate outside outages.
        sigma: standard deviation of the natural logarithm of the rate outside outages.
        lag_one: autocorrelation of that logarithm from one second to the next.
        outages_per_minute: entries into an outage.
        mean_outage_s: outages last a geometric number of seconds with this mean.
    """

    median_bps: float
    sigma: float
    lag_one: float
    outages_per_minute: float = 0.0
    mean_outage_s: float = 1.0


PROFILES: dict[str, LinkProfile] = {
    "wifi-good": LinkProfile(53e6, 0.41, 0.81),
    "lte-city": LinkProfile(11.8e6, 0.72, 0.91, 0.43, 1.0),
    "lte-weak": LinkProfile(5.7e6, 0.64, 0.77, 0.86, 1.0),
    "subway": LinkProfile(5.6e6, 0.84, 0.84, 1.66, 1.8),
    "rail-outage": LinkProfile(6.0e6, 0.80, 0.83, 2.0, 4.5),
}


def generate(profile: LinkProfile, seconds: int, seed: int, name: str = "generated") -> Trace:
    """A trace of ``seconds`` one-second steps; equal arguments give equal traces."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(seconds) * math.sqrt(1.0 - profile.lag_one**2)
    level = random.standard_normal()
    down = _outages(profile, seconds, random)
    rates = []
    for step in range(seconds):
        level = profile.lag_one * level + noise[step]
        rate = max(FLOOR_BPS, profile.median_bps * math.exp(profile.sigma * level))
        rates.append(0.0 if down[step] else rate)
    return Trace.uniform(name, rates)


def synthetic() -> Trace:
    """Jellyfish's synthetic trace: 20-15-10-7.5-10-15-20 Mbit/s, 20 s each."""
    return Trace.uniform("synthetic_trace", [rate * BITS_PER_MBIT for rate in SYNTHETIC_MBIT], SYNTHETIC_STEP_S)


def _outages(profile: LinkProfile, seconds: int, random: np.random.Generator) -> list[bool]:
    if profile.outages_per_minute == 0.0:
        return [False] * seconds
    # Entries are counted per minute of all time, but only a link that is up can enter an outage.
    enter = profile.outages_per_minute / (60.0 - profile.outages_per_minute * profile.mean_outage_s)
    leave = 1.0 / profile.mean_outage_s
    draws = random.random(seconds)
    down, states = False, []
    for draw in draws:
        # A link that comes up stays up for at least one step, or two outages would be one.
        down = draw >= leave if down else draw < enter
        states.append(down)
    return states
