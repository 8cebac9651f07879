"""tc-tbf shaper: the rate of every link on an interface follows its trace. Needs root or CAP_NET_ADMIN."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from moonjelly.clock import Clock, MonotonicClock
from moonjelly.errors import ShapingError
from moonjelly.telemetry import CsvLog, ShapingRow
from moonjelly.units import BITS_PER_MBIT, NS_PER_S
from network_shaping import ownership
from network_shaping.bucket import DEFAULT, Bucket
from network_shaping.ownership import Claim
from network_shaping.queues import Match, ShapedInterface
from network_shaping.traces import Trace

_TOGETHER_S = 1e-4
_FASTEST_BPS = 30e9
"""tbf counts bytes per second in 32 bits."""


@dataclass(frozen=True, slots=True)
class TbfLink:
    """One shaped link.

    Attributes:
        name: in the log.
        trace: its rate.
        matches: its packets; none when its sockets carry its class in ``SO_PRIORITY``.
    """

    name: str
    trace: Trace
    matches: tuple[Match, ...] = ()


class TbfShaper:
    """Shapes one interface while it is entered; leaves it as it was.

    Until :meth:`run` every link stands at the first rate of its trace that is no outage.

    Args:
        interface: its name in the present network namespace.
        links: one class each.
        shaping_log: takes a row per change.
        bucket: of every link.
        clock: that the traces follow.

    Raises:
        ShapingError: no such interface, not allowed, or shaped by another process.
    """

    def __init__(
        self,
        interface: str,
        links: Sequence[TbfLink],
        shaping_log: CsvLog[ShapingRow] | None = None,
        bucket: Bucket = DEFAULT,
        clock: Clock | None = None,
    ) -> None:
        for link in links:
            if max(link.trace.rates_bps) > _FASTEST_BPS:
                raise ShapingError(
                    f"link '{link.name}' is to have {max(link.trace.rates_bps):.3g} bit/s; tbf ends at 30e9"
                )
        self._links = tuple(links)
        self._log = shaping_log
        self._clock = clock or MonotonicClock()
        self._interface = ShapedInterface(interface, bucket)
        try:
            self._claim = Claim(interface)
        except ShapingError:
            self._interface.close()
            raise
        self._rates_bps: dict[int, float] = {}
        self._zero_ns = 0

    def __enter__(self) -> TbfShaper:
        noted = self._claim.left_behind or {}
        segments = noted.get("gso_max_segs", self._interface.gso_max_segs)
        self._claim.note(gso_max_segs=segments)
        try:
            self._interface.set_gso_max_segs(1)
        except ShapingError:
            self._claim.release()  # nothing was changed
            self._interface.close()
            raise
        try:
            rates = [link.trace.held().rate_bps(0.0) for link in self._links]
            self._interface.build(rates, [link.matches for link in self._links])
        except BaseException:
            self._leave(segments)
            raise
        self._segments = segments
        self._rates_bps = dict(enumerate(rates))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(self._segments)

    def run(self, stop: threading.Event) -> None:
        """Begin the traces, and follow them until ``stop`` is set. Blocks.

        Raises:
            ShapingError: the kernel refused a change, or somebody else removed our queueing disciplines.
        """
        self._zero_ns = self._clock.now_ns()
        due_s, changing = 0.0, list(range(len(self._links)))
        while True:
            after_s = due_s + _TOGETHER_S
            rates = {index: self._links[index].trace.rate_bps(after_s) for index in changing}
            batch = self._interface.compile(rates, self._rates_bps)
            if stop.wait(max(0.0, due_s - self._now_s())):
                return
            self._interface.send(batch)
            self._rates_bps.update(rates)
            self._record(due_s, self._clock.now_ns(), changing)
            changes = [link.trace.next_change_s(after_s) for link in self._links]
            due_s = min(changes)
            changing = [index for index, change_s in enumerate(changes) if change_s - due_s < _TOGETHER_S]

    def _record(self, due_s: float, changed_ns: int, changed: Sequence[int]) -> None:
        actual = self._interface.rates_bps()
        late_ms = (changed_ns - self._zero_ns) / 1e6 - due_s * 1e3
        for index in changed:
            if index not in actual:
                raise ShapingError(
                    f"link '{self._links[index].name}' has lost its queueing discipline; who removed it?"
                )
            if self._log is not None:
                wanted, found = self._rates_bps[index] / BITS_PER_MBIT, actual[index] / BITS_PER_MBIT
                self._log.write(ShapingRow(changed_ns, self._links[index].name, wanted, found, max(0.0, late_ms)))

    def _leave(self, segments: int) -> None:
        try:
            self._interface.remove()
            self._interface.set_gso_max_segs(segments)
            self._claim.release()
        finally:
            self._interface.close()

    def _now_s(self) -> float:
        return (self._clock.now_ns() - self._zero_ns) / NS_PER_S


def clean(interface: str | None = None) -> list[str]:
    """Remove what crashed shapers left on one interface, or on all of this network namespace.

    Returns:
        The interfaces that had something to clean.

    Raises:
        ShapingError: a live process shapes one of them; the others are cleaned first.
    """
    cleaned: list[str] = []
    busy: list[str] = []
    for name in [interface] if interface else ownership.interfaces_noted():
        try:
            if _clean_one(name):
                cleaned.append(name)
        except ShapingError as fault:
            busy.append(str(fault))
    if busy:
        raise ShapingError("; ".join(busy))
    return cleaned


def _clean_one(name: str) -> bool:
    claim = Claim(name)
    noted = claim.left_behind
    try:
        with contextlib.closing(ShapedInterface(name)) as shaped:
            removed = shaped.remove()
            if noted and "gso_max_segs" in noted:
                shaped.set_gso_max_segs(noted["gso_max_segs"])
    finally:
        claim.release()
    return removed or noted is not None
