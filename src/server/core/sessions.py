"""Sessions: who is connected, who may come back, and what each has seen so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from moonjelly.errors import ConfigError, ProtocolError, SessionError
from moonjelly.network import DEFAULT_RESPONSE_BYTES, FrameSizes
from moonjelly.placement import Place
from moonjelly.rpc import messages
from moonjelly.types import Outcome

MAX_SLO_MS = 60_000.0
MAX_FPS = 1_000.0
MAX_NAME = 200
MAX_RTT_MS = 60_000.0
"""A client that reports more is taken to have this: no deadline is longer."""
_UNDELIVERED = 64
KEEP_HISTORY = 1_000
"""Past sessions whose statistics are kept one by one; those of earlier ones are added up."""


@dataclass(slots=True)
class Statistics:
    """Of one session over all its streams."""

    name: str
    frames: int = 0
    bytes: int = 0
    resumes: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        """One more frame ended so."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def add(self, other: Statistics) -> None:
        """Count what ``other`` counted, too."""
        self.frames += other.frames
        self.bytes += other.bytes
        self.resumes += other.resumes
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


NO_PLACE = Place(reason="no plan has been made since it joined")
UNPLANNED = messages.PlanUpdate(version=0, placed=False, variant=0, reason=NO_PLACE.reason)


@dataclass(slots=True)
class Session:
    """One client.

    Attributes:
        stream: the stream that carries it now; ``None`` while it is lost.
        lost_ns: when its stream was lost.
        last_frame_id: highest id received.
        outstanding: frames that wait for their result.
        leaving: the client has said goodbye.
        input_ended: it sends no more on its present stream.
        bandwidth_bps: as it reported last; 0: never.
        learnt_ns: when its frames' size was last looked at.
        snapshot_bandwidth_bps: what the latest planning problem says.
        planned_bandwidth_bps: what its place in the plan was computed with.
        rtt_ms: as it reported last, at most :data:`MAX_RTT_MS`.
        sizes: what its frames weigh.
        response_bytes: what an answer to it weighs.
        preparation_ms: what it takes from capture to sending.
        place: what it has of the plan.
        plan: what it was told of that.
        undelivered: results that ended while it was lost.
    """

    session_id: int
    token: bytes
    name: str
    group: str
    slo_ms: float
    fps: float
    stream: int | None
    bandwidth_bps: float
    rtt_ms: float
    plan: messages.PlanUpdate
    statistics: Statistics
    place: Place = NO_PLACE
    lost_ns: int = 0
    last_frame_id: int = 0
    outstanding: int = 0
    leaving: bool = False
    input_ended: bool = False
    learnt_ns: int = 0
    snapshot_bandwidth_bps: float = 0.0
    planned_bandwidth_bps: float = 0.0
    response_bytes: float = DEFAULT_RESPONSE_BYTES
    preparation_ms: float = 0.0
    sizes: FrameSizes = field(default_factory=FrameSizes)
    undelivered: deque[messages.Result] = field(default_factory=lambda: deque(maxlen=_UNDELIVERED))

    @property
    def wants_place(self) -> bool:
        """Whether planning should count it. One whose stream is lost sends nothing, and others may have its room."""
        return self.stream is not None and not self.leaving


class SessionTable:
    """All sessions by id, by stream and by token.

    Args:
        ttl_ns: how long a lost session may be resumed.
        max_sessions: how many there may be.

    Attributes:
        history: statistics by id, of all present and the last :data:`KEEP_HISTORY` past sessions.
        earlier: sum over the past sessions that ``history`` holds no more.
        earlier_count: how many those are.
    """

    def __init__(self, ttl_ns: int, max_sessions: int) -> None:
        self._ttl_ns = ttl_ns
        self._max_sessions = max_sessions
        self._by_id: dict[int, Session] = {}
        self._by_stream: dict[int, Session] = {}
        self._by_token: dict[bytes, Session] = {}
        self._last_id = 0
        self._past: deque[int] = deque()
        self.history: dict[int, Statistics] = {}
        self.earlier = Statistics("earlier")
        self.earlier_count = 0

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session_id: int) -> Session | None:
        """By id."""
        return self._by_id.get(session_id)

    def of_stream(self, stream: int) -> Session | None:
        """Which session a stream carries."""
        return self._by_stream.get(stream)

    def open(self, stream: int, hello: messages.Hello, token: bytes) -> Session:
        """A new session; where there are too many, a lost one gives way to it.

        Raises:
            SessionError: there are too many, and none of them is lost.
        """
        if len(self._by_id) >= self._max_sessions and (lost := self._least_missed()) is not None:
            self.remove(lost)
        if len(self._by_id) >= self._max_sessions:
            raise SessionFullError(
                f"the server has {len(self._by_id)} sessions, its limit; try another server, or raise max_sessions"
            )
        self._last_id += 1
        session = Session(
            session_id=self._last_id,
            token=token,
            name=hello.name[:MAX_NAME],
            group=hello.group,
            slo_ms=hello.slo_ms,
            fps=hello.fps,
            stream=stream,
            bandwidth_bps=hello.bandwidth_bps,
            rtt_ms=min(2.0 * hello.one_way_ms, MAX_RTT_MS),
            plan=UNPLANNED,
            statistics=Statistics(hello.name[:MAX_NAME]),
        )
        self.history[session.session_id] = session.statistics
        self._by_id[session.session_id] = session
        self._by_stream[stream] = session
        self._by_token[token] = session
        return session

    def _least_missed(self) -> Session | None:
        """Of the lost sessions one that never sent a frame, or else the one that has been lost for longest.

        So clients that say hello and vanish, again and again, keep nobody out, and cost no camera its session.
        """
        lost = (session for session in self if session.stream is None)
        return min(lost, key=lambda session: (session.last_frame_id > 0, session.lost_ns), default=None)

    def resume(self, stream: int, token: bytes) -> tuple[Session, int | None]:
        """Carry a session on over another stream; also the stream that carried it until now, if one still did.

        Raises:
            SessionError: the token is unknown or its session has expired.
        """
        session = self._by_token.get(token)
        if session is None or session.leaving:
            raise SessionError(
                "the resume token is unknown: its session has expired, said goodbye, or belongs to another server; "
                "say hello without a token"
            )
        old = session.stream
        if old is not None:
            del self._by_stream[old]
        session.stream = stream
        session.input_ended = False
        session.statistics.resumes += 1
        self._by_stream[stream] = session
        return session, old

    def lose(self, stream: int, now_ns: int) -> Session | None:
        """A stream has ended; the session that it carried until now, if any."""
        session = self._by_stream.pop(stream, None)
        if session is not None:
            session.stream = None
            session.lost_ns = now_ns
        return session

    def remove(self, session: Session) -> None:
        """Forget a session."""
        del self._by_id[session.session_id]
        del self._by_token[session.token]
        if session.stream is not None:
            del self._by_stream[session.stream]
        self._past.append(session.session_id)
        if len(self._past) > KEEP_HISTORY:
            self.earlier.add(self.history.pop(self._past.popleft()))
            self.earlier_count += 1

    def expired(self, now_ns: int) -> list[Session]:
        """Lost sessions whose time to live is over."""
        return [s for s in self if s.stream is None and now_ns >= s.lost_ns + self._ttl_ns]

    def next_expiry_ns(self) -> int | None:
        """When the next lost session expires."""
        if len(self._by_stream) == len(self._by_id):
            return None
        instants = (session.lost_ns + self._ttl_ns for session in self if session.stream is None)
        return min(instants, default=None)


class SessionFullError(SessionError):
    """No more sessions."""

    wire_code = "RESOURCE_EXHAUSTED"


def check_hello(hello: messages.Hello, groups: tuple[str, ...]) -> None:
    """Refuse what cannot be served.

    Raises:
        ProtocolError: another protocol version, an impossible deadline or rate.
        ConfigError: an unknown group.
    """
    if hello.protocol_version != messages.PROTOCOL_VERSION:
        raise ProtocolError(
            f"protocol version {hello.protocol_version}; this server speaks {messages.PROTOCOL_VERSION}: "
            "use a client of the same release"
        )
    if not 0.0 < hello.slo_ms <= MAX_SLO_MS:
        raise ProtocolError(f"slo_ms is {hello.slo_ms}; it must be in (0, {MAX_SLO_MS:g}]")
    if not 0.0 < hello.fps <= MAX_FPS:
        raise ProtocolError(f"fps is {hello.fps}; it must be in (0, {MAX_FPS:g}]")
    if hello.group not in groups:
        raise ConfigError(f"model group '{hello.group}' is unknown; this server has {', '.join(groups)}")
