"""When a connection is given up for lost, and how often a new one is tried: one rule, live and simulated.

What was lost on a dead link is sent again by TCP after 0.2, 0.6, 1.4, 3 s (RFC 6298, section 5.5, from Linux's least
time-out of 0.2 s): a link that returns after a second carries nothing for as long again, unless by a new connection.
"""

from __future__ import annotations

from moonjelly.units import ClientInstant, ms_to_ns

SILENCE_MS = 700.0
"""Beyond what an answer takes: two retransmissions have been lost, and the third is as far away again."""
MAX_SILENCE_MS = 2_000.0
LOOK_AGAIN_MS = 50.0
"""Between the two looks that a verdict takes."""
FIRST_RETRY_MS, LAST_RETRY_MS, MAX_RETRY_MS = 250.0, 600.0, 2_000.0
RETRY_SHARE = 0.05
"""Of the time that the link has been gone: what a long outage costs to find its end is small beside its length."""
ROUND_TRIPS_TO_OPEN = 8
"""That opening a connection may take: TCP, TLS, the stream, hello and welcome, and as many again."""


def outage_after_ms(slo_ms: float, rtt_ms: float, transfer_ms: float = 0.0) -> float:
    """How long a server that was asked may say nothing before the link is taken to be gone.

    Giving a connection up loses what is on its way, so a frame that may still be answered in time is waited for.

    Args:
        slo_ms: deadline of a frame.
        rtt_ms: round trip of the unloaded link.
        transfer_ms: that the link, as it was, takes for all that is unacknowledged.
    """
    return rtt_ms + min(max(SILENCE_MS, slo_ms) + transfer_ms, MAX_SILENCE_MS)


def retry_after_ms(gone_ms: float, rtt_ms: float) -> float:
    """From the begin of one attempt to open a connection to the next's, which takes a new socket.

    Every attempt sends at once; a socket that was opened into the outage repeats itself only after 1, 3, 7 s.

    Args:
        gone_ms: since the connection was given up.
        rtt_ms: round trip of the unloaded link.
    """
    patience_ms = min(max(FIRST_RETRY_MS, RETRY_SHARE * gone_ms), LAST_RETRY_MS)
    return min(max(patience_ms, ROUND_TRIPS_TO_OPEN * rtt_ms), MAX_RETRY_MS)


class Silence:
    """Counted from the first message that is unanswered, or from the last answer while others are due.

    A client that was itself without a processor for a second looks before it has read what arrived meanwhile. So the
    verdict takes two looks, and whatever is heard between them counts.
    """

    def __init__(self) -> None:
        self._since: ClientInstant | None = None
        self._after_ns = 0
        self._looked: ClientInstant | None = None

    def asked(self, now: ClientInstant, after_ms: float) -> None:
        """Something was sent that the server answers at once.

        Args:
            now: when.
            after_ms: of silence, after which the link is gone: :func:`outage_after_ms`.
        """
        if self._since is None:
            self._since = now
        self._after_ns = ms_to_ns(after_ms)

    def heard(self, now: ClientInstant, more_due: bool) -> None:
        """The server has said something.

        Args:
            now: when it was read.
            more_due: whether answers are still to come.
        """
        self._since, self._looked = now if more_due else None, None

    def stop(self) -> None:
        """Nobody asks any more."""
        self._since = self._looked = None

    @property
    def next_look(self) -> ClientInstant | None:
        """When :meth:`look` is next due, ``None`` while nothing is unanswered."""
        if self._since is None:
            return None
        ends, between_ns = self._since + self._after_ns, ms_to_ns(LOOK_AGAIN_MS)
        if self._looked is None:
            return ClientInstant(ends - between_ns)
        return ClientInstant(max(ends, self._looked + between_ns))

    def look(self, now: ClientInstant) -> bool:
        """Whether the link must be taken to be gone."""
        due = self.next_look
        if due is None or now < due:
            return False
        if self._looked is None:
            self._looked = now
            return False
        return True
