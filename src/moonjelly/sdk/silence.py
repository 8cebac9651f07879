"""Notices a stream that says nothing although it was asked."""

from __future__ import annotations

from moonjelly.adaptation import OUTAGE_AFTER_MS
from moonjelly.units import ClientInstant, ms_to_ns


class Silence:
    """Counted from the first message that is unanswered, or from the last answer while others are due."""

    def __init__(self) -> None:
        self._since: ClientInstant | None = None

    def asked(self, now: ClientInstant) -> None:
        """Something was sent that the server answers at once."""
        if self._since is None:
            self._since = now

    def heard(self, now: ClientInstant, more_due: bool) -> None:
        """The server has said something.

        Args:
            now: when it was read.
            more_due: whether answers are still to come.
        """
        self._since = now if more_due else None

    def stop(self) -> None:
        """Nobody asks any more."""
        self._since = None

    @property
    def ends(self) -> ClientInstant | None:
        """When it will have lasted for too long, ``None`` while nothing is unanswered."""
        return None if self._since is None else ClientInstant(self._since + ms_to_ns(OUTAGE_AFTER_MS))

    def too_long(self, now: ClientInstant) -> bool:
        """Whether the link must be taken to be gone."""
        return self.ends is not None and now >= self.ends
