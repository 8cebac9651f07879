"""When a client pings, what its pings weigh, and which of them are unanswered."""

from __future__ import annotations

from moonjelly.adaptation import PADDING_EVERY_MS
from moonjelly.network import SETTLING_PINGS, ping_pause_ns
from moonjelly.rpc.messages import Ping, Pong
from moonjelly.units import ClientInstant, ms_to_ns


class Pings:
    """The pings of one stream after the other; none while there is no stream."""

    def __init__(self) -> None:
        self._next: ClientInstant | None = None
        self._sent = 0
        self._unanswered = 0
        self._padded: dict[int, int] = {}
        self._next_padding = ClientInstant(0)

    @property
    def next_instant(self) -> ClientInstant | None:
        """When the next one is due, ``None`` without a stream."""
        return self._next

    @property
    def unanswered(self) -> bool:
        """Whether any of this stream's is."""
        return self._unanswered > 0

    def start(self, now: ClientInstant) -> None:
        """A new stream: what was asked on the last one is not answered on it."""
        self._next, self._sent, self._unanswered = now, 0, 0
        self._padded.clear()

    def stop(self) -> None:
        """The stream is gone."""
        self._next = None

    def due(self, now: ClientInstant) -> bool:
        """Whether one is to be sent now."""
        return self._next is not None and now >= self._next

    def may_carry_padding(self, now: ClientInstant) -> bool:
        """Whether the next one may; see :func:`moonjelly.adaptation.padding_bytes`."""
        return self._sent >= SETTLING_PINGS and now >= self._next_padding

    def send(self, now: ClientInstant, padding_bytes: int) -> Ping:
        """The ping of ``now``."""
        self._sent += 1
        self._unanswered += 1
        self._next = ClientInstant(now + ping_pause_ns(self._sent))
        if padding_bytes:
            self._padded[now] = padding_bytes
            self._next_padding = ClientInstant(now + ms_to_ns(PADDING_EVERY_MS))
        return Ping(now, padding_bytes)

    def answered(self, pong: Pong) -> int:
        """Take in an answer: how many bytes the ping carried."""
        self._unanswered = max(0, self._unanswered - 1)
        return self._padded.pop(pong.sent_client_ns, 0)
