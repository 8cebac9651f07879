"""The asynchronous client that other programs embed (``docs/sdk.md``).

:class:`~moonjelly.sdk.session.Session` decides, :class:`~moonjelly.sdk.connection.Connection` talks to the server;
this module hands every outcome to whoever waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from moonjelly.adaptation import Send
from moonjelly.clock import Clock, MonotonicClock
from moonjelly.errors import ConfigError, ConnectionLostError, SessionError
from moonjelly.network import LinkEstimate
from moonjelly.on_hand import OnHand
from moonjelly.rpc.messages import PlanUpdate, Welcome, ZooInfo
from moonjelly.sdk.connection import Connection, ConnectionState, StateCallback
from moonjelly.sdk.encoding import Encoder, check_picture
from moonjelly.sdk.results import EncodedFrame, FrameResult, Withheld
from moonjelly.sdk.session import Identity, Session
from moonjelly.sdk.statistics import Statistics
from moonjelly.sdk.stream import Target
from moonjelly.types import DEFAULT_GROUP, Outcome
from moonjelly.units import ClientInstant, ns_to_ms


class AsyncClient:
    """One camera's stream to a moonjelly server, with its deadline.

    Args:
        target: ``host:port``, or another kind of gRPC target.
        slo_ms: end-to-end deadline, capture to result.
        fps: nominal capture rate, which planning reserves.
        name: shown in the server's logs.
        group: model group.
        token: the server's access token, if it asks for one.
        root_certificates: PEM file of the authority behind the server's TLS certificate; none: no TLS.
        register_timeout_s: for the first registration; then :class:`ConnectionLostError`.
        reconnect_s: how long a lost connection is tried again before the client gives up.
        congestion_control: of TCP, for its connections (Linux); empty: the host's.
        clock: monotonic clock of this host.
        on_state: told of every change of the connection's state.

    Raises:
        ConfigError: an impossible value.
    """

    def __init__(
        self,
        target: str,
        *,
        slo_ms: float,
        fps: float,
        name: str = "",
        group: str = DEFAULT_GROUP,
        token: str = "",
        root_certificates: Path | None = None,
        register_timeout_s: float = 10.0,
        reconnect_s: float = 300.0,
        congestion_control: str = "",
        clock: Clock | None = None,
        on_state: StateCallback | None = None,
    ) -> None:
        for key, value in (("slo_ms", slo_ms), ("fps", fps), ("register_timeout_s", register_timeout_s)):
            if not 0.0 < value < float("inf"):
                raise ConfigError(f"{key} = {value}: it must be a positive number")
        _check_address(target)
        self._clock: Clock = clock or MonotonicClock()
        self._session = Session(Identity(name, slo_ms, fps, group))
        self._connection = Connection(
            Target(target, token, _read(root_certificates), congestion_control),
            self._session,
            self._clock,
            self._deliver,
            self._choose_waiting,
            self._on_connection,
            reconnect_s,
        )
        self._address = target
        self._register_timeout_s = register_timeout_s
        self._on_state = on_state
        self._encoder = Encoder()
        self._futures: dict[int, asyncio.Future[FrameResult]] = {}
        self._subscribers: set[asyncio.Queue[FrameResult | None]] = set()
        self._on_hand: OnHand[asyncio.Future[Send | None]] = OnHand(slo_ms)
        self._closed = False

    # -- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Register with the server. Returns also when the plan has no place yet (``plan.placed`` says so).

        Raises:
            ConnectionLostError: no answer within ``register_timeout_s``; names the target and the last cause.
            SessionError: the server refused the access token.
            ConfigError: the server refused what this client asks for.
            ProtocolError: it is no moonjelly server of this version.
        """
        try:
            await self._connection.open(self._register_timeout_s)
        except BaseException:
            self._encoder.close()
            raise

    async def close(self) -> None:
        """Say goodbye, wait briefly for the answers that are still due, and free everything. Idempotent."""
        self._end_waiting()
        await self._connection.close()
        self._encoder.close()

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._connection.state

    @property
    def plan(self) -> PlanUpdate:
        """The server's plan for this client.

        Raises:
            SessionError: not registered yet.
        """
        if self._session.plan is None:
            raise SessionError("there is no plan before the client is connected")
        return self._session.plan

    @property
    def zoo(self) -> ZooInfo:
        """Variants and class names of the client's group.

        Raises:
            SessionError: not registered yet.
        """
        return self._welcome.zoo

    @property
    def session_id(self) -> int:
        """The server's number for this session.

        Raises:
            SessionError: not registered yet.
        """
        return self._welcome.session_id

    @property
    def statistics(self) -> Statistics:
        """Counts so far."""
        return self._session.statistics()

    @property
    def link(self) -> LinkEstimate:
        """Bandwidth, round trip and clock offset as estimated now."""
        return self._session.estimate(self._now())

    @property
    def _welcome(self) -> Welcome:
        if self._session.welcome is None:
            raise SessionError("nothing is known of the server before the client is connected")
        return self._session.welcome

    def _now(self) -> ClientInstant:
        return ClientInstant(self._clock.now_ns())

    # -- frames -----------------------------------------------------------------------------------------------------

    async def detect(self, rgb: NDArray[np.uint8], captured_ns: int | None = None) -> FrameResult:
        """Adapt, encode, send and wait for the outcome of one frame.

        Args:
            rgb: ``(height, width, 3)`` uint8.
            captured_ns: when it was captured on this client's clock; now, unless given.

        Returns:
            Its outcome; a miss is a result, not an error.

        Raises:
            FrameError: ``rgb`` is no such array.
            ConnectionLostError: the client is closed.
        """
        check_picture(rgb)
        captured = self._now() if captured_ns is None else ClientInstant(captured_ns)
        choice = await self.chosen(captured)
        if isinstance(choice, Withheld):
            return self.withhold(choice, captured)
        self._check_open()  # it may have been closed since the choice
        size = self.zoo.variants[choice.variant].input_size
        encoded = await self._encoder.encode(rgb, size, choice.variant, choice.jpeg_quality)
        return await self.submit(encoded, captured)

    def choose(self, captured_ns: int | None = None) -> Send | Withheld:
        """What to send of a frame captured at ``captured_ns`` (default: now): variant and JPEG quality, or why not.

        Raises:
            ConnectionLostError: the client is closed.
        """
        self._check_open()
        now = self._now()
        return self._session.choose(now if captured_ns is None else ClientInstant(captured_ns), now)

    async def chosen(self, captured_ns: int) -> Send | Withheld:
        """:meth:`choose`, but a frame that the link alone stands in the way of has until its deadline.

        It is chosen as soon as the link is back, or free enough, with enough time left; unless a newer frame is sent or
        the client is closed.

        Raises:
            ConnectionLostError: the client is closed.
        """
        captured, choice = ClientInstant(captured_ns), self.choose(captured_ns)
        if isinstance(choice, Withheld) and choice.may_pass:
            return await self._turn_of(captured) or choice
        if isinstance(choice, Send):
            self._pass_over(captured)
        return choice

    async def _turn_of(self, captured: ClientInstant) -> Send | None:
        """What to send of a frame that waits for the link; ``None`` when it has waited in vain."""
        waiting: asyncio.Future[Send | None] = asyncio.get_running_loop().create_future()
        for oldest in self._on_hand.add(captured, waiting):
            _tell(oldest, None)
        try:
            left_ms = self._session.identity.slo_ms - ns_to_ms(self._now() - captured)
            return await asyncio.wait_for(waiting, left_ms / 1e3)
        except asyncio.TimeoutError:
            return None
        finally:
            self._on_hand.remove(waiting)

    def _choose_waiting(self) -> None:
        """Something has changed on the link: one of the frames on hand may have its turn."""
        now = self._now()

        def choose(captured: ClientInstant) -> Send | None:
            choice = self._session.choose(captured, now, probing=False)
            return choice if isinstance(choice, Send) else None

        found = self._on_hand.next_to_send(choose, now)
        if found is not None:
            captured, waiting, choice = found
            self._pass_over(captured)
            _tell(waiting, choice)

    def _pass_over(self, sent: ClientInstant) -> None:
        for waiting in self._on_hand.passed_over(sent):
            _tell(waiting, None)

    def _end_waiting(self) -> None:
        for waiting in self._on_hand.all():
            _tell(waiting, None)

    def submit(self, encoded: EncodedFrame, captured_ns: int) -> asyncio.Future[FrameResult]:
        """Send an encoded frame; the future yields its outcome and never raises.

        Raises:
            ConnectionLostError: the client is closed.
        """
        self._on_hand.handed_over(ClientInstant(captured_ns))
        self._check_open()
        future: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        begun = self._session.begin(encoded, ClientInstant(captured_ns), self._now())
        if isinstance(begun, FrameResult):
            future.set_result(begun)
            self._publish(begun)
            return future
        self._futures[begun] = future
        self._connection.send(begun)
        self._choose_waiting()
        return future

    def withhold(self, withheld: Withheld, captured_ns: int) -> FrameResult:
        """Count a captured frame that is not sent, so that it does not vanish from the miss rate."""
        result = self._session.withhold(ClientInstant(captured_ns), withheld, self._now())
        self._publish(result)
        return result

    def skip(self, captured_ns: int, reason: str) -> FrameResult:
        """:meth:`withhold` for a frame that the embedding program could not take."""
        return self.withhold(Withheld(Outcome.SKIPPED, reason), captured_ns)

    def results(self) -> AsyncIterator[FrameResult]:
        """Every outcome from this call on, in order, until the client is closed. Unread ones are kept."""
        queue: asyncio.Queue[FrameResult | None] = asyncio.Queue()
        self._subscribers.add(queue)
        if self._closed:
            queue.put_nowait(None)
        return _until_closed(queue, lambda: self._subscribers.discard(queue))

    def _check_open(self) -> None:
        if self.state is ConnectionState.CLOSED:
            cause = f": {self._connection.fault}" if self._connection.fault else ""
            raise ConnectionLostError(f"the client of {self._address} is closed{cause}")

    def _deliver(self, results: list[FrameResult]) -> None:
        for result in results:
            future = self._futures.pop(result.frame_id, None)
            if future is not None and not future.done():
                future.set_result(result)
            self._publish(result)

    def _on_connection(self, state: ConnectionState, reason: str) -> None:
        if state is ConnectionState.CLOSED:
            self._closed = True
            self._end_waiting()
            for subscriber in self._subscribers:
                subscriber.put_nowait(None)
        if self._on_state is not None:
            self._on_state(state, reason)

    def _publish(self, result: FrameResult) -> None:
        for subscriber in self._subscribers:
            subscriber.put_nowait(result)


async def _until_closed(
    queue: asyncio.Queue[FrameResult | None], unsubscribe: Callable[[], None]
) -> AsyncIterator[FrameResult]:
    try:
        while (result := await queue.get()) is not None:
            yield result
    finally:
        unsubscribe()


def _tell(waiting: asyncio.Future[Send | None], choice: Send | None) -> None:
    if not waiting.done():  # it has waited too long, or nobody waits any more
        waiting.set_result(choice)


def _check_address(target: str) -> None:
    """Left to gRPC, a name without a port is looked for until the time is over, and a port that is too large wraps."""
    host, _, port = target.rpartition(":")
    numbered = port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
    if not (host and numbered) and "/" not in target:  # unix:/path and dns:///host:port are gRPC's to read
        raise ConfigError(f"'{target}' is no address of a server; give host:port, with a port from 1 to 65535")


def _read(certificates: Path | None) -> bytes | None:
    if certificates is None:
        return None
    try:
        return certificates.read_bytes()
    except OSError as fault:
        raise ConfigError(f"root_certificates = {certificates}: {fault.strerror}") from None
