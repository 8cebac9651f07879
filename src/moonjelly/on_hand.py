"""Frames that wait for the link: one rule, live and simulated.

A frame that nothing but the link stands in the way of may still make it: the link may return, or the frames before it
be acknowledged, while enough of its deadline is left. Until then it stays on hand, and is encoded only when it is
clear what the link carries: nothing of it waits in a socket, where it could not be called back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from moonjelly.adaptation import Send
from moonjelly.units import ClientInstant, ms_to_ns

MOST = 4
"""Frames that wait at once: pictures are large, and with a long deadline an outage would pile them up."""
Waiting = TypeVar("Waiting")


class OnHand(Generic[Waiting]):
    """The waiting frames of one client, oldest first.

    Args:
        slo_ms: end-to-end deadline of its frames.
    """

    def __init__(self, slo_ms: float) -> None:
        self._slo_ns = ms_to_ns(slo_ms)
        self._frames: list[tuple[ClientInstant, Waiting]] = []
        self._encoded_now: ClientInstant | None = None

    def add(self, captured: ClientInstant, waiting: Waiting) -> list[Waiting]:
        """A frame begins to wait; it is the newest. Returns those that make room, and wait no longer."""
        self._frames.append((captured, waiting))
        before, self._frames = self._frames[:-MOST], self._frames[-MOST:]
        return [other for _, other in before]

    def remove(self, waiting: Waiting) -> None:
        """It waits no longer, if it did."""
        self._frames = [frame for frame in self._frames if frame[1] is not waiting]

    def given_up(self, now: ClientInstant) -> list[Waiting]:
        """Those whose deadline has passed; they wait no longer."""
        return self._taken(lambda captured: now - captured >= self._slo_ns)

    def passed_over(self, sent: ClientInstant) -> list[Waiting]:
        """Those captured before one that is sent; they wait no longer, and frames stay in order."""
        return self._taken(lambda captured: captured < sent)

    def next_to_send(
        self, choose: Callable[[ClientInstant], Send | None], now: ClientInstant
    ) -> tuple[ClientInstant, Waiting, Send] | None:
        """The oldest that can be sent now, which waits no longer; ``None``: all go on waiting.

        One at a time: the next has its turn when this one has been :meth:`handed_over` to the stream, and is part of
        what the next one waits for; or at this one's deadline, should it never be.

        Args:
            choose: what to send of the frame captured at an instant, if it can be sent.
            now: the present.
        """
        if self._encoded_now is not None and now - self._encoded_now < self._slo_ns:
            return None
        for captured, waiting in self._frames:
            if (chosen := choose(captured)) is not None:
                self.remove(waiting)
                self._encoded_now = captured
                return captured, waiting, chosen
        return None

    def handed_over(self, captured: ClientInstant) -> None:
        """The frame captured then is encoded: it is on its way, or will never be."""
        if self._encoded_now == captured:
            self._encoded_now = None

    def all(self) -> list[Waiting]:
        """All of them; they wait no longer."""
        return self._taken(lambda captured: True)

    def _taken(self, over: Callable[[ClientInstant], bool]) -> list[Waiting]:
        taken = [waiting for captured, waiting in self._frames if over(captured)]
        self._frames = [frame for frame in self._frames if not over(frame[0])]
        return taken
