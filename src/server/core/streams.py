"""Streams: who comes, what each is told first, who leaves, and when a stream ends."""

from __future__ import annotations

import heapq

from moonjelly.errors import MoonjellyError
from moonjelly.rpc import messages
from moonjelly.units import ServerInstant, ms_to_ns
from moonjelly.version import __version__
from server import ipc
from server.core import events as ev
from server.core.plans import Plans
from server.core.sessions import Session, check_hello
from server.core.state import State


class Streams:
    """Between streams and the sessions that they carry."""

    def __init__(self, state: State, plans: Plans) -> None:
        self._settings = state.settings
        self._sessions = state.sessions
        self._devices = state.devices
        self._planning = state.planning
        self._out = state.out
        self._plans = plans
        self._drain: messages.Drain | None = None
        self._draining: list[tuple[int, int]] = []

    def join(self, event: ev.Joined, now_ns: int) -> None:
        """Open a session, or carry one on."""
        if self._drain is not None:
            self._fail(event.stream, "UNAVAILABLE", self._drain.reason)
            return
        try:
            if event.hello.resume_token:
                session, old = self._sessions.resume(event.stream, event.hello.resume_token)
                if old is None:
                    self._plans.place(session)
                else:
                    self._fail(old, "ABORTED", "the session was resumed on another stream")
            else:
                check_hello(event.hello, tuple(self._settings.zoos))
                session = self._sessions.open(event.stream, event.hello, event.token)
                self._plans.place(session)
        except MoonjellyError as fault:
            self._fail(event.stream, fault.wire_code, str(fault))
            return
        resumed = bool(event.hello.resume_token)
        self._out.append(ev.Send(event.stream, self._welcome(session, resumed)))
        while session.undelivered:
            self._out.append(ev.Send(event.stream, session.undelivered.popleft()))
        self._planning.want("resume" if resumed else "join")

    def _welcome(self, session: Session, resumed: bool) -> messages.Welcome:
        return messages.Welcome(
            session_id=session.session_id,
            token=session.token,
            session_ttl_s=self._settings.session_ttl_ns / 1e9,
            resumed=resumed,
            last_frame_id=session.last_frame_id,
            zoo=self._settings.zoos[session.group],
            plan=session.plan,
            max_frame_bytes=self._settings.max_frame_bytes,
            max_outstanding=self._settings.max_outstanding,
            server_version=__version__,
        )

    def ping(self, event: ev.PingReceived, now_ns: int) -> None:
        """Answer with both of the server's instants."""
        pong = messages.Pong(event.ping.sent_ns, ServerInstant(event.received_ns), ServerInstant(now_ns))
        self._out.append(ev.Send(event.stream, pong))

    def bye(self, event: ev.ByeReceived, now_ns: int) -> None:
        """Its session ends with its last result."""
        session = self._sessions.of_stream(event.stream)
        if session is not None and not session.leaving:
            session.leaving = True
            self._planning.want("leave")
            self.end_if_done(session)

    def input_ended(self, event: ev.InputEnded, now_ns: int) -> None:
        """The stream ends with its session's last result."""
        session = self._sessions.of_stream(event.stream)
        if session is None:
            self._out.append(ev.EndStream(event.stream))
        else:
            session.input_ended = True
            self.end_if_done(session)

    def end_if_done(self, session: Session) -> None:
        """End the stream of a client that sends no more and has all its results; goodbye ends the session, too."""
        if session.outstanding or not (session.leaving or session.input_ended):
            return
        if session.stream is not None:
            self._out.append(ev.EndStream(session.stream))
        if session.leaving:
            self._sessions.remove(session)

    def refused(self, event: ev.MessageRefused, now_ns: int) -> None:
        """Say why, and end the stream."""
        self._fail(event.stream, event.code, event.text)

    def _fail(self, stream: int, code: str, text: str) -> None:
        self._out.append(ev.Send(stream, messages.StreamError(code, text, fatal=True)))
        self._out.append(ev.EndStream(stream))

    def closed(self, event: ev.StreamClosed, now_ns: int) -> None:
        """Keep the session for a while; nobody waits for its frames."""
        session = self._sessions.lose(event.stream, now_ns)
        if session is None:
            return
        for device in self._devices:
            if device.up and device.frames:
                self._out.append(ev.Tell(device.device_id, ipc.Forget(session.session_id)))
        if session.leaving:
            self._sessions.remove(session)

    def drain(self, event: ev.DrainBegan, now_ns: int) -> None:
        """Tell everybody; take nobody from now on.

        Clients stop sending when they hear it. What was on its way then has come after one deadline and a round trip,
        or comes too late; from then on each stream ends with its last result. A round trip beyond the deadline is not
        waited for, whatever a client claims: no answer would be in time.
        """
        self._drain = messages.Drain(event.grace_s, event.reason)
        for session in self._sessions:
            if session.stream is not None:
                self._out.append(ev.Send(session.stream, self._drain))
                quiet_ns = now_ns + ms_to_ns(session.slo_ms + min(session.rtt_ms, session.slo_ms))
                heapq.heappush(self._draining, (quiet_ns, session.session_id))

    def next_quiet_ns(self) -> int | None:
        """When :meth:`end_drained` is next due."""
        return self._draining[0][0] if self._draining else None

    def end_drained(self, now_ns: int) -> None:
        """Take the clients for silent that have had the time to hear of the drain."""
        while self._draining and self._draining[0][0] <= now_ns:
            session = self._sessions.get(heapq.heappop(self._draining)[1])
            if session is not None and session.stream is not None:
                session.input_ended = True
                self.end_if_done(session)

    def expire(self, now_ns: int) -> None:
        """Forget the lost sessions whose time to live is over."""
        for session in self._sessions.expired(now_ns):
            self._sessions.remove(session)
            self._planning.want("expired")
