"""Keeps one stream up: registers, resumes with back-off, watches for silence, moves messages.

:class:`~moonjelly.sdk.session.Session` decides what they mean; every stream is a new channel
(:mod:`moonjelly.sdk.stream`).
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moonjelly.backoff import Backoff
from moonjelly.clock import Clock
from moonjelly.errors import ConfigError, ConnectionLostError, MoonjellyError, ProtocolError, SessionError
from moonjelly.outage import ROUND_TRIPS_TO_OPEN
from moonjelly.rpc.messages import Bye, ServerMessage, Welcome
from moonjelly.sdk import congestion, sockets
from moonjelly.sdk.results import FrameResult
from moonjelly.sdk.session import Session
from moonjelly.sdk.stream import Stream, Target, fault_of
from moonjelly.units import NS_PER_S, ClientInstant, ns_to_ms

ATTEMPT_TIMEOUT_S = 2.0
"""For one hello and its welcome, of a session that never had a connection."""
MAX_RETRY_S = 0.75
"""From one attempt's begin to the next, for such a session; others: :func:`moonjelly.outage.retry_after_ms`."""
CLOSE_TIMEOUT_S = 2.0
"""How long :meth:`Connection.close` waits for the answers that are still due."""

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


class Connection:
    """One session's connection to its server, over as many streams as it takes.

    Args:
        target: the server.
        session: decides; changed by this class alone while it is open.
        clock: monotonic clock of this host.
        deliver: takes the frames that have ended.
        on_heard: told when the server has said something: the link carries.
        on_state: told of every change of state.
        reconnect_s: how long a lost stream is tried again.
    """

    def __init__(
        self,
        target: Target,
        session: Session,
        clock: Clock,
        deliver: Callable[[list[FrameResult]], None],
        on_heard: Callable[[], None],
        on_state: StateCallback,
        reconnect_s: float,
    ) -> None:
        self._target = target
        self._session = session
        self._clock = clock
        self._deliver = deliver
        self._on_heard = on_heard
        self._on_state = on_state
        self._reconnect_s = reconnect_s
        self._state = ConnectionState.CLOSED
        self._fault: MoonjellyError | None = None
        self._outbox: deque[int] = deque()
        self._wake_writer = asyncio.Event()
        self._silent = asyncio.Event()
        self._registered = asyncio.Event()
        self._lost_at = self._now()
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: ClientInstant | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def state(self) -> ConnectionState:
        """Where it stands."""
        return self._state

    @property
    def fault(self) -> MoonjellyError | None:
        """Why the last stream ended or could not be opened."""
        return self._fault

    async def open(self, timeout_s: float) -> None:
        """Register with the server.

        Raises:
            ConnectionLostError: no answer within ``timeout_s``; names the target and the last cause.
            SessionError, ConfigError: the server refused, and would again.
            ProtocolError: it is no moonjelly server of this version.
        """
        if self._supervisor is not None:
            raise ConfigError("this client is connected or was closed already; make a new one")
        self._set_state(ConnectionState.CONNECTING, "registering")
        self._supervisor = asyncio.create_task(self._supervise())
        self._supervisor.add_done_callback(self._supervisor_ended)
        registered = asyncio.create_task(self._registered.wait())
        try:
            await asyncio.wait({registered, self._supervisor}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
            if not self._registered.is_set():
                await self._shut("registration failed")
        if self._registered.is_set():
            return
        if self._fault is not None and not isinstance(self._fault, ConnectionLostError):
            raise self._fault
        cause = f" (last cause: {self._fault})" if self._fault else ""
        raise ConnectionLostError(
            f"no server answered at {self._target.address} within {timeout_s:g} s{cause}; "
            "check the address and that the server is running"
        )

    def send(self, frame_id: int) -> None:
        """Queue a frame that the session has begun."""
        self._outbox.append(frame_id)
        self._wake_writer.set()
        self._arm()

    async def close(self) -> None:
        """Say goodbye, wait briefly for the answers that are still due, end what is left. Idempotent."""
        if self._supervisor is not None and self._session.connected:
            self._leaving = True
            self._wake_writer.set()
            await asyncio.wait({self._supervisor}, timeout=CLOSE_TIMEOUT_S)
        await self._shut("closed by the program")

    async def _shut(self, reason: str) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deliver(self._session.close())
        self._set_state(ConnectionState.CLOSED, reason)

    async def _supervise(self) -> None:
        """Keep one stream up until closed, refused, or out of time."""
        backoff = Backoff()
        self._lost_at = self._now()
        shares = np.random.default_rng()
        while True:
            begun = self._now()
            failed = replace(backoff.failed(), limit_s=self._retry_s() or MAX_RETRY_S)
            pause_s = failed.delay_s(shares.random())
            try:
                await self._serve_once(pause_s)
                self._fault = ConnectionLostError(f"{self._target.address} ended the stream")
            except _ResumeRefusedError:
                self._deliver(self._session.forget())
                continue
            except (ConnectionLostError, ProtocolError, SessionError, ConfigError) as fault:
                self._fault = _without_frames(fault)
                if not self._registered.is_set() and not isinstance(fault, ConnectionLostError):
                    return
            if self._leaving:
                return
            if self._session.connected:
                begun = self._lost_at = self._now()
                failed = Backoff().failed()
                pause_s = failed.delay_s(shares.random())
                self._deliver(self._session.disconnect())
                self._set_state(ConnectionState.RECONNECTING, str(self._fault))
                self._arm()
            if self._registered.is_set() and self._now() - self._lost_at > self._reconnect_s * NS_PER_S:
                self._end(str(self._fault))
                return
            backoff = failed
            waited_s = (self._now() - begun) / NS_PER_S
            await asyncio.sleep(max(0.0, pause_s - waited_s))

    def _supervisor_ended(self, task: asyncio.Task[None]) -> None:
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            _log.error("the client of %s failed", self._target.address, exc_info=defect)
            self._end(f"internal error: {defect!r}")

    async def _serve_once(self, pause_s: float) -> None:
        """Open a stream, register or resume, and move messages until it ends.

        Args:
            pause_s: from the begin of this attempt to the next's: until then it may find the end of an outage.
        """
        stream = Stream(self._target, max(self._connect_s(), pause_s))
        try:
            self._silent.clear()
            first = await self._welcomed(stream)
            await self._choose_congestion_control()
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
        timeout_s = self._retry_s() or ATTEMPT_TIMEOUT_S
        try:
            message = await asyncio.wait_for(self._greet(stream), timeout_s)
        except asyncio.TimeoutError:
            raise ConnectionLostError(f"{self._target.address} did not answer within {timeout_s:.2g} s") from None
        except SessionError:
            if resuming:
                raise _ResumeRefusedError from None
            raise
        if message.error is not None:
            fault = fault_of(self._target.address, message.error.code, message.error.message)
            if resuming and isinstance(fault, SessionError):
                raise _ResumeRefusedError
            raise fault
        if message.welcome is None:
            raise ProtocolError(f"{self._target.address} answered hello with something else than welcome")
        now = self._now()
        self._deliver(self._session.connect(message.welcome, now))
        self._deliver(self._session.receive(message, now))
        self._on_heard()
        return message.welcome

    async def _choose_congestion_control(self) -> None:
        """Where one was asked for; what the system refuses costs a warning, not the stream."""
        algorithm = self._target.congestion_control
        if not algorithm:
            return
        try:
            congestion.choose(algorithm, await sockets.peers_of(self._target.address))
        except OSError as fault:
            _log.warning(
                "TCP's congestion control for %s stays the host's: '%s' cannot be chosen: %s; see "
                "/proc/sys/net/ipv4/tcp_allowed_congestion_control",
                self._target.address,
                algorithm,
                fault.strerror,
            )

    def _retry_s(self) -> float | None:
        """From one attempt to resume to the next; ``None`` while there is no session, and the round trip is unknown."""
        if self._session.welcome is None:
            return None
        now = self._now()
        return self._session.retry_ms(ns_to_ms(now - self._lost_at), now) / 1e3

    def _connect_s(self) -> float:
        """What an attempt's connection may take to open: where the round trip is unknown, as long as the attempt."""
        if self._session.welcome is None:
            return ATTEMPT_TIMEOUT_S
        return ROUND_TRIPS_TO_OPEN * self._session.estimate(self._now()).rtt_ms / 1e3

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
        finding = asyncio.create_task(stream.find_connection())
        tasks = {reader, writer, silence}
        try:
            pending = tasks
            while not (reader.done() or silence.done()):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if not reader.done():
                stream.abandon()
                raise ConnectionLostError(f"{self._target.address} has stopped answering")
        finally:
            for task in (*tasks, finding):
                task.cancel()
            await asyncio.gather(*tasks, finding, return_exceptions=True)

    async def _read(self, stream: Stream) -> None:
        while (message := await stream.read()) is not None:
            self._deliver(self._session.receive(message, self._now()))
            self._on_heard()
            if message.drain is not None:
                self._set_state(ConnectionState.DRAINING, message.drain.reason)
            if message.error is not None:
                _log.warning("%s: %s: %s", self._target.address, message.error.code, message.error.message)
                if message.error.fatal:
                    raise fault_of(self._target.address, message.error.code, message.error.message)

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
                self._wake_writer.clear()
                await self._wake_writer.wait()

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
            self._wake_writer.set()  # the writer sends the ping that is due
            self._arm()

    def _set_state(self, state: ConnectionState, reason: str) -> None:
        if state is self._state:
            return
        self._state = state
        _log.info("%s: %s (%s)", self._target.address, state.value, reason)
        self._on_state(state, reason)

    def _now(self) -> ClientInstant:
        return ClientInstant(self._clock.now_ns())


def _without_frames(fault: MoonjellyError) -> MoonjellyError:
    """An error to be kept: what its frames hold, the stream's call above all, would keep the old socket open."""
    fault.__context__ = None
    return fault.with_traceback(None)


class _ResumeRefusedError(Exception):
    """The server does not know the session any more."""
