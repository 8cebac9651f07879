"""The bandwidth estimators of the published system, as baselines.

Client: frame size over the time that the round trip took beyond the server's hold time, smoothed by an error-based
filter (Kim and Noble, "Mobile network estimation", MobiCom 2001; Jellyfish: gain 0.6, history 10, reset when the input
size changes). Server: harmonic mean of the recent reports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from moonjelly.network.exchange import Exchange
from moonjelly.units import NS_PER_S, ClientInstant

_GAIN = 0.6
_HISTORY = 10
HARMONIC_WINDOW_NS = NS_PER_S


def raw_bandwidth_bps(exchange: Exchange) -> float:
    """One exchange's sample, bit/s: bits over the whole network time, queueing and propagation included."""
    return exchange.size_bytes * 8.0 * NS_PER_S / max(1, exchange.round_trip_ns)


@dataclass(frozen=True, slots=True)
class ErrorBasedFilter:
    """Error-based filter (Kim and Noble, MobiCom 2001) over :func:`raw_bandwidth_bps`.

    Attributes:
        bandwidth_bps: the estimate; 0 before the first sample.
        error_bps: smoothed absolute error of the estimate against the samples.
        history: the last values of ``error_bps``; the largest scales the weight.
        input_size: that the samples belong to; another one resets the filter.
    """

    bandwidth_bps: float = 0.0
    error_bps: float = 0.0
    history: tuple[float, ...] = ()
    input_size: int = 0

    def step(self, exchange: Exchange, input_size: int) -> ErrorBasedFilter:
        """Take in one frame's exchange."""
        sample = raw_bandwidth_bps(exchange)
        if self.bandwidth_bps == 0.0 or input_size != self.input_size:
            return ErrorBasedFilter(sample, 0.0, (), input_size)
        error = _GAIN * self.error_bps + (1.0 - _GAIN) * abs(self.bandwidth_bps - sample)
        history = (*self.history, error)[-_HISTORY:]
        largest = max(history)
        # All recent errors 0: the samples equal the estimate, and the published code divides by zero.
        keep = 1.0 - error / largest if largest > 0.0 else 1.0
        return replace(
            self,
            bandwidth_bps=keep * self.bandwidth_bps + (1.0 - keep) * sample,
            error_bps=error,
            history=history,
        )


@dataclass(frozen=True, slots=True)
class HarmonicMean:
    """Harmonic mean of the samples of the last second.

    Attributes:
        samples: (instant, bit/s), oldest first.
    """

    samples: tuple[tuple[ClientInstant, float], ...] = ()

    def step(self, now: ClientInstant, sample_bps: float) -> HarmonicMean:
        """Take in one positive sample."""
        recent = tuple(entry for entry in self.samples if now - entry[0] < HARMONIC_WINDOW_NS)
        return HarmonicMean((*recent, (now, max(1.0, sample_bps))))

    @property
    def bandwidth_bps(self) -> float:
        """The mean; 0 without samples."""
        return len(self.samples) / sum(1.0 / rate for _, rate in self.samples) if self.samples else 0.0
