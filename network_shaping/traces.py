"""Bandwidth traces: a rate over time that repeats, and the readers of the formats that people have.

Formats, told apart by content: one Mbit/s value per line and second (Jellyfish); ``value,unit`` per line and second
(NYU-METS); ``time<TAB>Mbit/s`` with time in seconds (Pensieve and others); whole milliseconds in non-decreasing order,
each the chance to deliver 1500 bytes (Mahimahi). Zero is an outage; a negative rate is an error.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moonjelly.errors import TraceError, cause
from moonjelly.units import BITS_PER_MBIT

MAHIMAHI_PACKET_BITS = 1500 * 8
_MAHIMAHI_SUFFIXES = (".up", ".down", ".mahi")
_NEVER_MBIT_PER_S = 1_000
"""No radio trace of one value per line reaches this many Mbit/s: whole numbers that do are Mahimahi's milliseconds."""
_UNITS = {"bits/sec": 1.0, "kbits/sec": 1e3, "mbits/sec": 1e6, "gbits/sec": 1e9}


@dataclass(frozen=True)
class Trace:
    """A piecewise constant rate that wraps around.

    Attributes:
        name: for logs and messages.
        starts_s: when each rate begins, increasing, the first is 0.
        rates_bps: the rates; 0 is an outage.
        duration_s: end of the last rate, where it begins again.
        offset_s: instant of the trace at which time 0 falls.

    Raises:
        TraceError: no rates, a negative or infinite one, or starts that do not increase.
    """

    name: str
    starts_s: tuple[float, ...]
    rates_bps: tuple[float, ...]
    duration_s: float
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.rates_bps or len(self.starts_s) != len(self.rates_bps):
            raise TraceError(f"trace '{self.name}' has {len(self.rates_bps)} rates; it needs at least one")
        for rate in self.rates_bps:
            if not 0.0 <= rate < math.inf:
                raise TraceError(f"trace '{self.name}' has the rate {rate} bit/s; rates are 0 (outage) or positive")
        edges = (*self.starts_s, self.duration_s)
        if self.starts_s[0] != 0.0 or any(after <= before for before, after in itertools.pairwise(edges)):
            raise TraceError(f"trace '{self.name}': its times must begin at 0 and increase")
        bits = [rate * (end - start) for rate, start, end in zip(self.rates_bps, self.starts_s, edges[1:], strict=True)]
        object.__setattr__(self, "_bits", tuple(itertools.accumulate(bits, initial=0.0)))

    @staticmethod
    def uniform(name: str, rates_bps: Iterable[float], interval_s: float = 1.0, offset_s: float = 0.0) -> Trace:
        """A trace whose rate may change every ``interval_s``."""
        rates = tuple(rates_bps)
        starts = tuple(index * interval_s for index in range(len(rates)))
        return Trace(name, starts, rates, len(rates) * interval_s, offset_s)

    def at_offset(self, offset_s: float) -> Trace:
        """The same trace, beginning ``offset_s`` into it (modulo its duration)."""
        return Trace(self.name, self.starts_s, self.rates_bps, self.duration_s, offset_s % self.duration_s)

    def begun_at(self, time_s: float) -> Trace:
        """The same trace, of which what was time 0 falls at ``time_s``."""
        return self.at_offset(self.offset_s - time_s)

    def held(self) -> Trace:
        """A link before this trace begins: for ever at its rate at time 0, or where that is an outage, after it."""
        up_s = self.up_s(0.0)
        return Trace(self.name, (0.0,), (self.rate_bps(up_s) if up_s < math.inf else 0.0,), 1.0)

    def rate_bps(self, time_s: float) -> float:
        """Rate at ``time_s`` (not negative)."""
        return self.rates_bps[self._segment((time_s + self.offset_s) % self.duration_s)]

    def next_change_s(self, time_s: float) -> float:
        """The first instant after ``time_s`` at which a new rate begins."""
        cycles, inside = divmod(time_s + self.offset_s, self.duration_s)
        edges = (*self.starts_s[1:], self.duration_s)
        change = edges[self._segment(inside)]
        instant = cycles * self.duration_s + change - self.offset_s
        return instant if instant > time_s else self.next_change_s(math.nextafter(time_s + 1e-9, math.inf))

    def delivered_bits(self, time_s: float) -> float:
        """Bits that a backlogged link has carried from the trace's own beginning to ``time_s``."""
        cycles, inside = divmod(time_s + self.offset_s, self.duration_s)
        segment = self._segment(inside)
        bits = self._cumulated
        return cycles * bits[-1] + bits[segment] + self.rates_bps[segment] * (inside - self.starts_s[segment])

    def finish_s(self, start_s: float, size_bits: float) -> float:
        """When ``size_bits`` that begin at ``start_s`` have passed; infinite on a trace of zeros."""
        bits = self._cumulated
        if bits[-1] == 0.0:
            return math.inf
        cycles, rest = divmod(self.delivered_bits(start_s) + size_bits, bits[-1])
        segment = min(bisect.bisect_left(bits, rest, lo=1) - 1, len(self.rates_bps) - 1)
        rate = self.rates_bps[segment]
        inside = self.starts_s[segment] + ((rest - bits[segment]) / rate if rate else 0.0)
        return max(start_s, cycles * self.duration_s + inside - self.offset_s)

    def up_s(self, time_s: float) -> float:
        """The first instant at or after ``time_s`` at which the link is not in an outage; infinite if there is none."""
        if not any(self.rates_bps):
            return math.inf
        cycles, inside = divmod(time_s + self.offset_s, self.duration_s)
        segment = self._segment(inside)
        while self.rates_bps[segment] == 0.0:
            segment += 1
            if segment == len(self.rates_bps):
                segment, cycles = 0, cycles + 1
        # At an edge, rounding may still tell the segment before: then the one after it begins now.
        return max(time_s, cycles * self.duration_s + self.starts_s[segment] - self.offset_s)

    @property
    def mean_bps(self) -> float:
        """Time-weighted mean rate."""
        return self._cumulated[-1] / self.duration_s

    @property
    def interval_s(self) -> float:
        """Typical time between two rates."""
        return statistics.median(end - start for start, end in itertools.pairwise((*self.starts_s, self.duration_s)))

    @property
    def _cumulated(self) -> tuple[float, ...]:
        bits: tuple[float, ...] = self.__dict__["_bits"]
        return bits

    def _segment(self, inside_s: float) -> int:
        return bisect.bisect_right(self.starts_s, inside_s) - 1


def read(path: Path) -> Trace:
    """Read a trace file in any of the known formats.

    Raises:
        TraceError: missing, empty, or a line that no format allows; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError:
        raise TraceError(f"trace file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise TraceError(f"trace file {path} cannot be read: {cause(fault)}") from fault
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise TraceError(f"trace file {path} is empty; it needs one rate in Mbit/s per line")
    if "," in lines[0][1]:
        return Trace.uniform(path.name, [_with_unit(path, *line) for line in lines])
    if len(lines[0][1].split()) == 2:
        return _timed(path, lines)
    if path.suffix in _MAHIMAHI_SUFFIXES or _are_milliseconds(lines):
        return _mahimahi(path, lines)
    return Trace.uniform(path.name, [_rate(path, number, cell) * BITS_PER_MBIT for number, cell in lines])


def write(trace: Trace, path: Path, heading: str) -> None:
    """Write one Mbit/s value per line and second, or ``time<TAB>Mbit/s`` where the rate changes between seconds.

    In the latter format the last rate has no end of its own: readers take it to last as long as most do.
    """
    mbits = [f"{rate / BITS_PER_MBIT:.3f}" for rate in trace.rates_bps]
    edges = (*trace.starts_s, trace.duration_s)
    if all(edge.is_integer() for edge in edges):
        lines = [
            rate
            for rate, (start, end) in zip(mbits, itertools.pairwise(edges), strict=True)
            for _ in range(int(end - start))
        ]
    else:
        lines = [f"{start:.6f}\t{rate}" for start, rate in zip(trace.starts_s, mbits, strict=True)]
    path.write_text("\n".join([f"# {heading}", *lines]) + "\n", encoding="utf-8")


def _rate(path: Path, number: int, cell: str) -> float:
    try:
        rate = float(cell)
    except ValueError:
        raise TraceError(f"{path}, line {number}: '{cell}' is not a rate; one number in Mbit/s is expected") from None
    if not 0.0 <= rate < math.inf:
        raise TraceError(f"{path}, line {number}: the rate {cell} is not allowed; rates are 0 (outage) or positive")
    return rate


def _with_unit(path: Path, number: int, line: str) -> float:
    value, _, unit = line.partition(",")
    factor = _UNITS.get(unit.strip().lower())
    if factor is None:
        raise TraceError(f"{path}, line {number}: unknown unit '{unit.strip()}'; known: {', '.join(_UNITS)}")
    return _rate(path, number, value.strip()) * factor


def _timed(path: Path, lines: Sequence[tuple[int, str]]) -> Trace:
    times: list[float] = []
    rates: list[float] = []
    for number, line in lines:
        cells = line.split()
        if len(cells) != 2:
            raise TraceError(f"{path}, line {number}: '{line}' has {len(cells)} columns; time and Mbit/s are expected")
        time_s = _time(path, number, cells[0])
        if times and time_s <= times[-1]:
            raise TraceError(f"{path}, line {number}: time {cells[0]} does not come after the line before")
        times.append(time_s)
        rates.append(_rate(path, number, cells[1]) * BITS_PER_MBIT)
    steps = [after - before for before, after in itertools.pairwise(times)] or [1.0]
    starts = tuple(time_s - times[0] for time_s in times)
    return Trace(path.name, starts, tuple(rates), starts[-1] + statistics.median(steps))


def _time(path: Path, number: int, cell: str) -> float:
    try:
        time_s = float(cell)
    except ValueError:
        time_s = math.nan
    if not math.isfinite(time_s):
        raise TraceError(f"{path}, line {number}: '{cell}' is not a time in seconds")
    return time_s


def _are_milliseconds(lines: Sequence[tuple[int, str]]) -> bool:
    if not lines[-1][1].isdecimal() or int(lines[-1][1]) < _NEVER_MBIT_PER_S:
        return False
    cells = [line for _, line in lines]
    return all(cell.isdecimal() for cell in cells) and all(
        int(after) >= int(before) for before, after in itertools.pairwise(cells)
    )


def _mahimahi(path: Path, lines: Sequence[tuple[int, str]]) -> Trace:
    """Deliveries binned into seconds; the last, incomplete second is scaled to a whole one."""
    instants: list[int] = []
    for number, cell in lines:
        if not cell.isdecimal() or (instants and int(cell) < instants[-1]):
            raise TraceError(f"{path}, line {number}: '{cell}' is not a millisecond at or after the line before")
        instants.append(int(cell))
    duration_s = max(1, round(instants[-1] / 1000))
    packets = [0] * duration_s
    for instant in instants:
        packets[min(instant // 1000, duration_s - 1)] += 1
    return Trace.uniform(path.name, [float(count * MAHIMAHI_PACKET_BITS) for count in packets])
