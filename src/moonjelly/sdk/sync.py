"""The synchronous client: an event loop in a thread behind plain calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moonjelly.adaptation import Send
from moonjelly.network import LinkEstimate
from moonjelly.rpc.messages import PlanUpdate, ZooInfo
from moonjelly.sdk.client import AsyncClient
from moonjelly.sdk.connection import ConnectionState
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.statistics import Statistics

T = TypeVar("T")


class Client:
    """:class:`~moonjelly.sdk.client.AsyncClient` for programs without an event loop; takes the same arguments.

    Use it as a context manager. Its methods may be called from any thread; each raises what the asynchronous one does.
    ``on_state`` is called on the client's own thread.
    """

    def __init__(self, target: str, **options: Any) -> None:
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="moonjelly-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._call(_construct(target, options))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Client:
        try:
            self._call(self._client.connect())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def detect(self, rgb: NDArray[np.uint8], captured_ns: int | None = None) -> FrameResult:
        """See :meth:`AsyncClient.detect`. Blocks until the frame has its outcome."""
        return self._call(self._client.detect(rgb, captured_ns))

    def submit(self, encoded: EncodedFrame, captured_ns: int) -> concurrent.futures.Future[FrameResult]:
        """See :meth:`AsyncClient.submit`; that the client is closed is the future's error."""

        async def outcome() -> FrameResult:
            return await self._client.submit(encoded, captured_ns)

        return self._begin(outcome())

    def choose(self, captured_ns: int | None = None) -> Send | Withheld:
        """See :meth:`AsyncClient.choose`."""

        async def choice() -> Send | Withheld:
            return self._client.choose(captured_ns)

        return self._call(choice())

    def chosen(self, captured_ns: int) -> Send | Withheld:
        """See :meth:`AsyncClient.chosen`."""
        return self._call(self._client.chosen(captured_ns))

    def withhold(self, withheld: Withheld, captured_ns: int) -> FrameResult:
        """See :meth:`AsyncClient.withhold`."""

        async def result() -> FrameResult:
            return self._client.withhold(withheld, captured_ns)

        return self._call(result())

    def skip(self, captured_ns: int, reason: str) -> FrameResult:
        """See :meth:`AsyncClient.skip`."""

        async def result() -> FrameResult:
            return self._client.skip(captured_ns, reason)

        return self._call(result())

    def close(self) -> None:
        """See :meth:`AsyncClient.close`. Idempotent."""
        if self._thread.is_alive():
            try:
                self._call(self._client.close())
            finally:
                self._stop()

    @property
    def plan(self) -> PlanUpdate:
        """See :attr:`AsyncClient.plan`."""
        return self._client.plan

    @property
    def zoo(self) -> ZooInfo:
        """See :attr:`AsyncClient.zoo`."""
        return self._client.zoo

    @property
    def session_id(self) -> int:
        """See :attr:`AsyncClient.session_id`."""
        return self._client.session_id

    @property
    def link(self) -> LinkEstimate:
        """See :attr:`AsyncClient.link`."""

        async def snapshot() -> LinkEstimate:
            return self._client.link

        return self._call(snapshot())

    @property
    def state(self) -> ConnectionState:
        """See :attr:`AsyncClient.state`."""
        return self._client.state

    @property
    def statistics(self) -> Statistics:
        """See :attr:`AsyncClient.statistics`."""

        async def snapshot() -> Statistics:
            return self._client.statistics

        return self._call(snapshot())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._begin(work).result()

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._thread.is_alive():
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        # Closed: what is known can still be asked, and the rest says why it cannot be done.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, work)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, else the standard one."""
    if importlib.util.find_spec("uvloop") is None:
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _construct(target: str, options: dict[str, Any]) -> AsyncClient:
    return AsyncClient(target, **options)
