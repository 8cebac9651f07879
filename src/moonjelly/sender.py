"""What a client knows of its link and of its frames, and how it decides by it: one object, live and simulated.

It joins the steps of :mod:`moonjelly.network`, :mod:`moonjelly.adaptation`, :mod:`moonjelly.preparation`,
:mod:`moonjelly.outage` and :mod:`moonjelly.safety_margin`. Who uses it keeps the frames that are in flight, and the
connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from moonjelly import adaptation, network, outage, safety_margin
from moonjelly.adaptation import PlanView, Send, Skip, Stream, Unacknowledged
from moonjelly.network import Exchange, FrameSizes, LinkEstimate, LinkState
from moonjelly.outage import Silence
from moonjelly.preparation import Preparation
from moonjelly.types import Outcome
from moonjelly.units import ClientInstant


class Sender:
    """The deciding part of one client, across all its connections.

    Args:
        slo_ms: end-to-end deadline of its frames.

    Attributes:
        link: what has been learnt of bandwidth, round trip and clock offset.
        sizes: what has been learnt of the sizes of encoded frames.
        margin_ms: that is kept free because frames came too late.
    """

    def __init__(self, slo_ms: float) -> None:
        self.link = LinkState()
        self.sizes = FrameSizes()
        self.margin_ms = 0.0
        self._slo_ms = slo_ms
        self._preparation = Preparation()
        self._silence = Silence()

    def estimate(self, now: ClientInstant) -> LinkEstimate:
        """The link as of ``now``."""
        return network.estimate(self.link, now)

    def choose(
        self,
        stream: Stream,
        plan: PlanView,
        in_flight: Sequence[Unacknowledged],
        captured: ClientInstant,
        now: ClientInstant,
        probing: bool = True,
    ) -> Send | Skip:
        """What to do with the frame captured at ``captured``; see :func:`moonjelly.adaptation.decide`."""
        decision = adaptation.decide(
            stream,
            plan,
            self.estimate(now),
            in_flight,
            self.sizes,
            captured,
            now,
            self._preparation.expected_ms(now),
            self._preparation.likely_ms(now),
            self.margin_ms,
            probing,
        )
        if isinstance(decision, Send):
            self._preparation.choose(captured, now)
        return decision

    def encoded(
        self,
        input_size: int,
        quality: int,
        size_bytes: int,
        captured: ClientInstant,
        now: ClientInstant,
        took_ms: float,
    ) -> None:
        """The frame captured at ``captured`` has been encoded to be sent, which took ``took_ms``."""
        self.sizes = network.observe_size(self.sizes, input_size, quality, size_bytes)
        self._preparation.finish(captured, now, took_ms)

    def asked(self, link: LinkEstimate, in_flight: Sequence[Unacknowledged], now: ClientInstant) -> None:
        """A frame or a ping has been handed to the stream: the server answers at once.

        Args:
            link: estimate as of ``now``.
            in_flight: unacknowledged frames, a frame that is handed over now included.
            now: the present.
        """
        transfer_ms = adaptation.unacknowledged_ms(link, in_flight)
        self._silence.asked(now, outage.outage_after_ms(self._slo_ms, link.rtt_ms, transfer_ms))

    def measured(self, exchange: Exchange) -> None:
        """A frame has been acknowledged, or a ping answered."""
        self.link = network.observe(self.link, exchange)

    def heard(self, now: ClientInstant, more_due: bool) -> None:
        """The server has said something; ``more_due``: answers are still to come."""
        self._silence.heard(now, more_due)

    def answered(self, outcome: Outcome) -> None:
        """A frame has been answered, in time or not."""
        self.margin_ms = safety_margin.observe(self.margin_ms, outcome, self._slo_ms)

    def stop(self) -> None:
        """The connection is gone, or a new one begins: nothing that was asked on the last is answered."""
        self._silence.stop()

    @property
    def next_look(self) -> ClientInstant | None:
        """When :meth:`silent` next has something to say; ``None`` while nothing is unanswered."""
        return self._silence.next_look

    def silent(self, now: ClientInstant) -> bool:
        """Whether the link must be taken to be gone; see :meth:`moonjelly.outage.Silence.look`."""
        return self._silence.look(now)

    def retry_ms(self, gone_ms: float, now: ClientInstant) -> float:
        """From one attempt to open a connection to the next, ``gone_ms`` after the last one was given up."""
        return outage.retry_after_ms(gone_ms, self.estimate(now).rtt_ms)
