"""The asynchronous client that other programs embed (``docs/sdk.md``).

:class:`~moonjelly.sdk.session.Session` decides; this module moves messages between it and the wire, keeps a
connection up, and hands every outcome to whoever waits for it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from moonjelly.adaptation import Send
from moonjelly.clock import Clock, MonotonicClock
from moonjelly.errors import ConfigError, ConnectionLostError, MoonjellyError, ProtocolError, SessionError
from moonjelly.network import LinkEstimate
from moonjelly.rpc.messages import Bye, PlanUpdate, ServerMessage, StreamError, Welcome, ZooInfo
from moonjelly.sdk.backoff import Backoff
from moonjelly.sdk.encoding import Encoder, check_picture
from moonjelly.sdk.results import EncodedFrame, FrameResult
from moonjelly.sdk.session import Identity, Session, Withheld
from moonjelly.sdk.statistics import Statistics
from moonjelly.sdk.stream import Stream, Target
from moonjelly.types import DEFAULT_GROUP, Outcome
from moonjelly.units import NS_PER_S, ClientInstant

ATTEMPT_TIMEOUT_S = 2.0
"""For one hello and its welcome; a link that comes back is tried again with a new socket."""
CLOSE_TIMEOUT_S = 2.0
"""How long :meth:`AsyncClient.close` waits for the answers that are still due."""

_log = logging.getLogger(__name__)


class ConnectionState(enum.Enum):
    """Where a client stands with its server."""

    CONNECTING = "CONNECTING"
    """The first registration is under way."""
    READY = "READY"
    """Frames can be sent."""
    RECONNECTING = "RECONNECTING"
    """The connection was lost; the session is being resumed."""
    DRAINING = "DRAINING"
    """The server will stop: answers still come, no frame goes."""
    CLOSED = "CLOSED"
    """By the program, or because the server did not come back."""


StateCallback = Callable[[ConnectionState, str], None]
"""Called with the new state and the reason for it, on the event loop."""


class AsyncClient:
    """One camera's stream to a moonjelly server, with its deadline.

    Args:
        target: ``host:port``.
        slo_ms: end-to-end deadline, capture to result.
        fps: nominal capture rate, which planning reserves.
        name: shown in the server's logs.
        group: model group.
        token: the server's access token, if it asks for one.
        root_certificates: PEM file of the authority behind the server's TLS certificate; none: no TLS.
        register_timeout_s: for the first registration; then :class:`ConnectionLostError`.
        reconnect_s: how long a lost connection is tried again before the client gives up.
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
        clock: Clock | None = None,
        on_state: StateCallback | None = None,
    ) -> None:
        for key, value in (("slo_ms", slo_ms), ("fps", fps), ("register_timeout_s", register_timeout_s)):
            if not 0.0 < value < float("inf"):
                raise ConfigError(f"{key} = {value}: it must be a positive number")
        if not target:
            raise ConfigError("target is empty; give host:port of the server")
        self._target = Target(target, token, _read(root_certificates))
        self._session = Session(Identity(name, slo_ms, fps, group))
        self._clock: Clock = clock or MonotonicClock()
        self._register_timeout_s = register_timeout_s
        self._reconnect_s = reconnect_s
        self._on_state = on_state
        self._state = ConnectionState.CLOSED
        self._encoder = Encoder()
        self._futures: dict[int, asyncio.Future[FrameResult]] = {}
        self._subscribers: set[asyncio.Queue[FrameResult | None]] = set()
        self._outbox: deque[int] = deque()
        self._outbox_filled = asyncio.Event()
        self._silent = asyncio.Event()
        self._leaving = False
        self._registered = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: ClientInstant | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._last_fault: MoonjellyError | None = None

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
        """
        if self._supervisor is not None:
            raise ConfigError("this client is connected or was closed already; make a new one")
        self._set_state(ConnectionState.CONNECTING, "registering")
        self._supervisor = asyncio.create_task(self._supervise())
        self._supervisor.add_done_callback(self._supervisor_ended)
        registered = asyncio.create_task(self._registered.wait())
        try:
            await asyncio.wait(
                {registered, self._supervisor},
                timeout=self._register_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            registered.cancel()
            if not self._registered.is_set():
                await self._shut("registration failed")
        if self._registered.is_set():
            return
        if self._last_fault is not None and not isinstance(self._last_fault, ConnectionLostError):
            raise self._last_fault
        cause = f" (last cause: {self._last_fault})" if self._last_fault else ""
        raise ConnectionLostError(
            f"no server answered at {self._target.address} within {self._register_timeout_s:g} s{cause}; "
            "check the address and that the server is running"
        )

    async def close(self) -> None:
        """Say goodbye, wait briefly for the answers that are still due, and free everything. Idempotent."""
        if self._supervisor is not None and self._session.connected:
            self._leaving = True
            self._outbox_filled.set()
            await asyncio.wait({self._supervisor}, timeout=CLOSE_TIMEOUT_S)
        await self._shut("closed by the program")

    async def _shut(self, reason: str) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._end(reason)
        self._encoder.close()

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deliver(self._session.close())
        for subscriber in self._subscribers:
            subscriber.put_nowait(None)
        self._set_state(ConnectionState.CLOSED, reason)

    # -- what is known ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._state

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
        choice = self.choose(captured)
        if isinstance(choice, Withheld):
            return self.withhold(choice, captured)
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

    def submit(self, encoded: EncodedFrame, captured_ns: int) -> asyncio.Future[FrameResult]:
        """Send an encoded frame; the future yields its outcome and never raises.

        Raises:
            ConnectionLostError: the client is closed.
        """
        self._check_open()
        future: asyncio.Future[FrameResult] = asyncio.get_running_loop().create_future()
        begun = self._session.begin(encoded, ClientInstant(captured_ns), self._now())
        if isinstance(begun, FrameResult):
            future.set_result(begun)
            self._publish(begun)
            return future
        self._futures[begun] = future
        self._outbox.append(begun)
        self._outbox_filled.set()
        self._arm()
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
        if self._state is ConnectionState.CLOSED and self._supervisor is not None:
            queue.put_nowait(None)
        return _until_closed(queue, lambda: self._subscribers.discard(queue))

    def _check_open(self) -> None:
        if self._state is ConnectionState.CLOSED:
            cause = f": {self._last_fault}" if self._last_fault else ""
            raise ConnectionLostError(f"the client of {self._target.address} is closed{cause}")

    def _deliver(self, results: list[FrameResult]) -> None:
        for result in results:
            future = self._futures.pop(result.frame_id, None)
            if future is not None and not future.done():
                future.set_result(result)
            self._publish(result)

    def _publish(self, result: FrameResult) -> None:
        for subscriber in self._subscribers:
            subscriber.put_nowait(result)

    # -- connection -------------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Keep one stream up until closed, refused, or out of time."""
        backoff = Backoff()
        lost_at = self._now()
        shares = np.random.default_rng()
        while True:
            try:
                await self._serve_once()
                self._last_fault = ConnectionLostError(f"{self._target.address} ended the stream")
            except _ResumeRefusedError:
                self._deliver(self._session.forget())
                continue
            except (ConnectionLostError, ProtocolError, SessionError, ConfigError) as fault:
                self._last_fault = fault
                if not self._registered.is_set() and not isinstance(fault, ConnectionLostError):
                    return
            if self._leaving:
                return
            if self._session.connected:
                backoff, lost_at = Backoff(), self._now()
                self._deliver(self._session.disconnect())
                self._set_state(ConnectionState.RECONNECTING, str(self._last_fault))
                self._arm()
            if self._registered.is_set() and self._now() - lost_at > self._reconnect_s * NS_PER_S:
                self._end(str(self._last_fault))
                return
            backoff = backoff.failed()
            await asyncio.sleep(backoff.delay_s(shares.random()))

    def _supervisor_ended(self, task: asyncio.Task[None]) -> None:
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            _log.error("the client of %s failed", self._target.address, exc_info=defect)
            self._end(f"internal error: {defect!r}")

    async def _serve_once(self) -> None:
        """Open a stream, register or resume, and move messages until it ends."""
        stream = Stream(self._target)
        try:
            self._silent.clear()
            first = await self._welcomed(stream)
            if self._session.draining is not None:
                self._set_state(ConnectionState.DRAINING, self._session.draining.reason)
            else:
                self._set_state(ConnectionState.READY, "resumed" if first.resumed else "registered")
            self._registered.set()
            self._arm()
            await self._pump(stream)
        finally:
            await stream.close()

    async def _welcomed(self, stream: Stream) -> Welcome:
        resuming = self._session.welcome is not None
        try:
            message = await asyncio.wait_for(self._greet(stream), ATTEMPT_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise ConnectionLostError(f"{self._target.address} did not answer within {ATTEMPT_TIMEOUT_S:g} s") from None
        except SessionError:
            if resuming:
                raise _ResumeRefusedError from None
            raise
        if message.error is not None:
            fault = _stream_fault(message.error)
            if resuming and isinstance(fault, SessionError):
                raise _ResumeRefusedError
            raise fault
        if message.welcome is None:
            raise ProtocolError(f"{self._target.address} answered hello with something else than welcome")
        now = self._now()
        self._deliver(self._session.connect(message.welcome, now))
        self._deliver(self._session.receive(message, now))
        return message.welcome

    async def _greet(self, stream: Stream) -> ServerMessage:
        await stream.write(self._session.hello(self._now()))
        message = await stream.read()
        if message is None:
            raise ConnectionLostError(f"{self._target.address} ended the stream without a welcome")
        return message

    async def _pump(self, stream: Stream) -> None:
        """Read and write until the server ends the stream, it breaks, or it has been silent for too long."""
        reader = asyncio.create_task(self._read(stream))
        writer = asyncio.create_task(self._write(stream))
        silence = asyncio.create_task(self._silent.wait())
        tasks = {reader, writer, silence}
        try:
            pending = tasks
            while not (reader.done() or silence.done()):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if not reader.done():
                raise ConnectionLostError(f"{self._target.address} has stopped answering")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, stream: Stream) -> None:
        while (message := await stream.read()) is not None:
            self._deliver(self._session.receive(message, self._now()))
            if message.drain is not None:
                self._set_state(ConnectionState.DRAINING, message.drain.reason)
            if message.error is not None:
                _log.warning("%s: %s: %s", self._target.address, message.error.code, message.error.message)
                if message.error.fatal:
                    raise _stream_fault(message.error)

    async def _write(self, stream: Stream) -> None:
        """The only writer: pings that are due, then frames, then the goodbye."""
        while True:
            ping = self._session.ping(self._now())
            if ping is not None:
                self._arm()
                await stream.write(ping)
            elif self._outbox:
                departing = self._session.depart(self._outbox.popleft(), self._now())
                if isinstance(departing, FrameResult):
                    self._deliver([departing])
                elif departing is not None:
                    self._arm()
                    await stream.write(departing)
            elif self._leaving:
                await stream.write(Bye("the program closed the client"))
                await stream.finish()
                return
            else:
                self._outbox_filled.clear()
                await self._outbox_filled.wait()

    # -- time -------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """One timer for everything that falls due; replaced only by an earlier one."""
        due = self._session.next_instant()
        if due is None or (self._timer_at is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, due - self._now()) / NS_PER_S
        self._timer_at = due
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        now = self._now()
        self._deliver(self._session.expire(now))
        if self._session.silent(now):
            self._silent.set()
        else:
            self._outbox_filled.set()  # the writer sends the ping that is due
            self._arm()

    def _set_state(self, state: ConnectionState, reason: str) -> None:
        if state is self._state:
            return
        self._state = state
        _log.info("%s: %s (%s)", self._target.address, state.value, reason)
        if self._on_state is not None:
            self._on_state(state, reason)


class _ResumeRefusedError(Exception):
    """The server does not know the session any more."""


async def _until_closed(
    queue: asyncio.Queue[FrameResult | None], unsubscribe: Callable[[], None]
) -> AsyncIterator[FrameResult]:
    try:
        while (result := await queue.get()) is not None:
            yield result
    finally:
        unsubscribe()


def _stream_fault(error: StreamError) -> MoonjellyError:
    text = f"{error.code}: {error.message}"
    if error.code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return SessionError(text)
    if error.code in ("INVALID_ARGUMENT", "UNIMPLEMENTED"):
        return ConfigError(text)
    return ConnectionLostError(text)


def _read(certificates: Path | None) -> bytes | None:
    if certificates is None:
        return None
    try:
        return certificates.read_bytes()
    except OSError as fault:
        raise ConfigError(f"root_certificates = {certificates}: {fault.strerror}") from None
