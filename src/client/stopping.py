"""Being told to stop: SIGTERM, SIGINT, or a parent that is gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable

from moonjelly.pipe import at_end_of


class StopRequest:
    """Set once; everything that waits for something else waits for it too."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._sleeper: asyncio.Future[None] | None = None
        self._signal: int | None = None

    @property
    def exit_status(self) -> int:
        """130 after Ctrl-C, as shells have it; 0 after SIGTERM, which is an orderly end."""
        return 130 if self._signal == signal.SIGINT else 0

    def listen(self, lifeline: int | None = None) -> None:
        """Stop on SIGTERM and SIGINT, and when the inherited pipe ``lifeline`` ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if lifeline is not None:
            at_end_of(lifeline, self.request)

    async def before(self, work: Awaitable[object]) -> bool:
        """Do ``work`` unless told to stop first, which cancels it; whether it was done."""
        task, stop = asyncio.ensure_future(work), asyncio.create_task(self.event.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        await task
        return True

    async def within(self, seconds: float) -> bool:
        """Whether it is, or within ``seconds`` becomes, time to stop."""
        if seconds > 0.0 and not self.event.is_set():
            # Every frame waits here: a timer and a future, instead of the task that wait_for() makes of an event.
            loop = asyncio.get_running_loop()
            self._sleeper = loop.create_future()
            timer = loop.call_later(seconds, _wake, self._sleeper)
            try:
                await self._sleeper
            finally:
                timer.cancel()
        return self.event.is_set()

    def request(self) -> None:
        """Stop."""
        self.event.set()
        if self._sleeper is not None:
            _wake(self._sleeper)

    def _on_signal(self, number: int) -> None:
        self._signal = number
        self.request()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
