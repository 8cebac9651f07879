"""User-space shaper: a TCP relay whose links follow traces. Needs no root.

Also the tc shaper's front: without rates of its own the relay only carries each link's connections on sockets that the
kernel's queueing disciplines can tell apart, whatever ports the client chooses when it reconnects.

One listening port per link; all connections of a link share its rate. The relay takes up a few milliseconds' worth of
bytes, holds them until a link of that rate would have delivered them, and only then takes up more; its socket
buffers are small. So the queue builds up at the sender, as behind a slow modem, and not in here. During an outage
nothing passes in either direction, not even the end of a connection. What is held of a connection that its client has
reset is dropped: the client would not have sent it again, and it must not stand in the next connection's way.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moonjelly.clock import Clock, MonotonicClock
from moonjelly.telemetry import CsvLog, ShapingRow
from moonjelly.units import BITS_PER_MBIT, NS_PER_S
from network_shaping.pacing import Pacer
from network_shaping.traces import Trace

_BUFFER_BYTES = 16_384
"""Of the sockets that face the sender; the kernel doubles it."""
_SEGMENT_BYTES = 1_448
"""An Ethernet's, also on loopback, where 64 KB segments would not fit the small buffers."""
_EARLY_S = 0.0005
"""The event loop's timers tick in milliseconds: half of one early is on time on average."""
_UNPACED_CHUNK_BYTES = 65_536
_FOR_EVER_S = 1e8
_CLOSED_STATES = (7, 8)
"""TCP_CLOSE, after a reset, and TCP_CLOSE_WAIT (Linux, ``net/tcp_states.h``)."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER``: for no time at all."""
_LATEST_TIMER_S = 0.05
_ACCEPT_AGAIN_S = 0.5
"""After a connection could not be taken: descriptors are short for as long as others hold them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One shaped link.

    Attributes:
        name: in the log and in the ready message.
        uplink: rate from whoever connects to the target; ``None``: as fast as it comes.
        downlink: rate back; ``None``: as fast as it comes.
        burst_bytes: that pass at once after a pause, per direction.
        delay_s: added in each direction.
        priority: ``SO_PRIORITY`` of the connections to the target, which a queueing discipline takes as their class.
    """

    name: str
    uplink: Trace | None
    downlink: Trace | None = None
    burst_bytes: int = 0
    delay_s: float = 0.0
    priority: int = 0


class UserspaceShaper:
    """A relay to one target with a port per link. ``start``, ``begin``, then ``close``."""

    def __init__(
        self,
        target: tuple[str, int],
        links: Sequence[LinkSpec],
        shaping_log: CsvLog[ShapingRow] | None = None,
        host: str = "127.0.0.1",
        clock: Clock | None = None,
    ) -> None:
        self._target = target
        self._host = host
        self._links = [_Link(spec, clock or MonotonicClock()) for spec in links]
        self._log = shaping_log
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> dict[str, tuple[str, int]]:
        """Listen; every link stands at the first rate of its trace that is no outage. Returns link name to address.

        Raises:
            OSError: the address cannot be bound.
        """
        addresses = {}
        for link in self._links:
            listener = _listen(self._host)
            self._listeners.append(listener)
            addresses[link.spec.name] = (self._host, int(listener.getsockname()[1]))
            self._spawn(self._accept(listener, link))
        return addresses

    def begin(self) -> None:
        """Time 0 of every trace is now. Once, after :meth:`start`."""
        for link in self._links:
            begun_s = link.begin()
            if link.uplink is not None:
                self._spawn(self._follow(link, link.uplink, begun_s))

    async def close(self) -> None:
        """Close all connections and stop. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _spawn(self, work: collections.abc.Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, link: _Link) -> None:
        """Take connections for as long as the shaper runs; one that cannot be taken now waits in the backlog."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                inner, _ = await loop.sock_accept(listener)
            except OSError as fault:
                log.warning(
                    "link %s: a connection could not be taken: %s; trying again every %g s "
                    "(if files are too many, raise the limit: ulimit -n)",
                    link.spec.name,
                    fault,
                    _ACCEPT_AGAIN_S,
                )
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            self._spawn(self._relay(inner, link))

    async def _relay(self, inner: socket.socket, link: _Link) -> None:
        """One connection, until both directions have ended, one of them broke, or the client has reset it."""
        loop = asyncio.get_running_loop()
        with inner, _reset_of(inner) as reset:
            outer = await self._connected(inner, link)
            if outer is None:
                return
            with outer:
                up = _Pipe(loop, inner, outer, link, link.up_pacer)
                down = _Pipe(loop, outer, inner, link, link.down_pacer)
                try:
                    pending = {up.ended, down.ended}
                    while pending and not reset.done():
                        done, _ = await asyncio.wait({*pending, reset}, return_when=asyncio.FIRST_COMPLETED)
                        for end in done & pending:
                            end.result()
                        pending -= done
                except OSError as fault:
                    log.info("link %s: connection ended: %s", link.spec.name, fault)
                finally:
                    up.stop()
                    down.stop()
                if reset.done():
                    log.info("link %s: the client has reset its connection", link.spec.name)
                    await link.until_up()
                    outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    async def _connected(self, inner: socket.socket, link: _Link) -> socket.socket | None:
        """A connection to the target; ``None`` where there is none, or nobody wants it any more."""
        with contextlib.ExitStack() as opened:
            try:
                await link.until_up()
                if _given_up(inner):
                    return None
                outer = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                outer.setblocking(False)
                for end in (inner, outer):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if link.spec.priority:
                    outer.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, link.spec.priority)
                    # The queue stays with the client: beyond what is in flight the socket takes up next to nothing.
                    outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _BUFFER_BYTES)
                await asyncio.get_running_loop().sock_connect(outer, self._target)
            except OSError as fault:
                log.warning("link %s: no connection to %s:%d: %s", link.spec.name, *self._target, fault)
                return None
            opened.pop_all()
            return outer

    async def _follow(self, link: _Link, uplink: Trace, begun_s: float) -> None:
        """Log the uplink's first rate and every change of it, with the rate that paces at the row's instant.

        The pacer follows the trace by itself: a late row does not mean a late change, but it may be of another rate.
        """
        change_s = begun_s
        while True:
            await asyncio.sleep(max(0.0, change_s - link.now_s()))
            now_s = link.now_s()
            if now_s < change_s:
                continue
            if self._log is not None:
                wanted, in_force = (uplink.rate_bps(at_s + 1e-6) / BITS_PER_MBIT for at_s in (change_s, now_s))
                late_ms = (now_s - change_s) * 1e3
                self._log.write(ShapingRow(link.instant_ns(now_s), link.spec.name, wanted, in_force, late_ms))
            change_s = uplink.next_change_s(change_s + 1e-6)


class _Link:
    """What the connections of one link share. Its time begins with the link, its traces only by :meth:`begin`."""

    def __init__(self, spec: LinkSpec, clock: Clock) -> None:
        self.spec = spec
        self._clock = clock
        self._zero_ns = clock.now_ns()
        self.up_pacer = Pacer(spec.uplink.held(), spec.burst_bytes) if spec.uplink else None
        self.down_pacer = Pacer(spec.downlink.held(), spec.burst_bytes) if spec.downlink else None

    @property
    def uplink(self) -> Trace | None:
        """What the uplink follows now, in the link's time."""
        return self.up_pacer.trace if self.up_pacer else None

    def begin(self) -> float:
        """Time 0 of the traces is now, which is returned in the link's time."""
        now_s = self.now_s()
        for pacer, trace in ((self.up_pacer, self.spec.uplink), (self.down_pacer, self.spec.downlink)):
            if pacer is not None and trace is not None:
                pacer.follow(trace.begun_at(now_s), now_s)
        return now_s

    def instant_ns(self, link_s: float) -> int:
        """A second of the link's time on the host's clock."""
        return self._zero_ns + round(link_s * NS_PER_S)

    def now_s(self) -> float:
        """Seconds since the link was made."""
        return (self._clock.now_ns() - self._zero_ns) / NS_PER_S

    async def until_up(self) -> None:
        """Wait for the end of an outage."""
        while True:
            now_s = self.now_s()
            down_s = self.up_s(now_s) - now_s
            if down_s <= 0.0:
                return
            await asyncio.sleep(min(down_s, _FOR_EVER_S))

    def up_s(self, now_s: float) -> float:
        """When something may pass at all: an outage of the uplink stops the way back, too."""
        return self.uplink.up_s(now_s) if self.uplink else now_s


class _Pipe:
    """One direction of one connection.

    A chunk is read as soon as the link is free, its passage is booked, and it waits in ``_held`` until it is due. One
    timer serves both; the reader is registered only while nothing is there to read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        sink: socket.socket,
        link: _Link,
        pacer: Pacer | None,
    ) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._source = source
        self._sink = sink
        self._link = link
        self._pacer = pacer
        self._held: collections.deque[tuple[float, bytes]] = collections.deque()
        self._timer: asyncio.TimerHandle | None = None
        self._free_s = 0.0
        """When the link has finished with what was read last."""
        self._reading = False
        self._writing = False
        self._turn()

    def stop(self) -> None:
        """Forget everything that is held. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._set_reading(False)
        self._set_writing(False)
        if not self.ended.done():
            self.ended.cancel()

    def _turn(self) -> None:
        """Hand on what is due, take up what the link is free for, and sleep until the next of these."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.ended.done():  # also where the whole shaper is being closed
            self._set_reading(False)
            self._set_writing(False)
            return
        now_s = self._link.now_s()
        try:
            while self._pass_on(now_s) and self._free_s <= now_s + _EARLY_S and self._take(now_s):
                pass
        except OSError as fault:
            self._set_reading(False)
            self.ended.set_exception(fault)
            return
        if self.ended.done() or self._writing:
            self._set_reading(False)
            return
        due_s = self._held[0][0] if self._held else math.inf
        if not self._reading:
            due_s = min(due_s, self._free_s)
        if due_s != math.inf:
            self._timer = self._loop.call_later(max(0.0, due_s - now_s - _EARLY_S), self._turn)

    def _take(self, now_s: float) -> bool:
        """Read a chunk and book its passage; false when nothing is there."""
        size = self._pacer.chunk_bytes(now_s) if self._pacer else _UNPACED_CHUNK_BYTES
        try:
            chunk = self._source.recv(size)
        except (BlockingIOError, InterruptedError):
            self._set_reading(True)
            return False
        # Bytes that were there when the timer came have waited since the link was free, however late the timer is.
        waited = not self._reading and now_s - self._free_s < _LATEST_TIMER_S
        if self._pacer is None:
            passed_s = self._link.up_s(now_s)
        else:
            passed_s = self._pacer.reserve(min(now_s, self._free_s) if waited else now_s, len(chunk))
        self._held.append((passed_s + self._link.spec.delay_s, chunk))
        self._free_s = passed_s if chunk else math.inf
        if self._free_s > now_s + _EARLY_S:
            self._set_reading(False)
        return True

    def _pass_on(self, now_s: float) -> bool:
        """Hand on what is due; false when the receiver has no room or the stream has ended."""
        while self._held and self._held[0][0] <= now_s + _EARLY_S:
            due_s, chunk = self._held.popleft()
            if not chunk:
                with contextlib.suppress(OSError):  # the receiver may have gone first
                    self._sink.shutdown(socket.SHUT_WR)
                self.ended.set_result(None)
                return False
            try:
                sent = self._sink.send(chunk)
            except (BlockingIOError, InterruptedError):
                sent = 0
            if sent < len(chunk):
                self._held.appendleft((due_s, chunk[sent:]))
                self._set_writing(True)
                return False
        self._set_writing(False)
        return True

    def _set_reading(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._source, self._turn)
            else:
                self._loop.remove_reader(self._source)

    def _set_writing(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._sink, self._turn)
            else:
                self._loop.remove_writer(self._sink)


@contextlib.contextmanager
def _reset_of(end: socket.socket) -> Iterator[asyncio.Future[None]]:
    """A future that is done once the peer has reset the connection, whether or not anything is read from it then."""
    loop = asyncio.get_running_loop()
    reset: asyncio.Future[None] = loop.create_future()
    with select.epoll() as watch:
        # An error is told unasked. By its edge: the end of both directions is, too, and would be told for ever.
        watch.register(end, select.EPOLLET)

        def look() -> None:
            if any(events & select.EPOLLERR for _, events in watch.poll(0)) and not reset.done():
                reset.set_result(None)

        loop.add_reader(watch.fileno(), look)
        try:
            yield reset
        finally:
            loop.remove_reader(watch.fileno())


def _given_up(end: socket.socket) -> bool:
    """Whether the peer has closed its end. Over a real link that was down meanwhile nobody would have heard of it."""
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _CLOSED_STATES


def _listen(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Before listen(): accepted sockets inherit the buffer and the segment size that was offered.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    listener.bind((host, 0))
    listener.listen()
    listener.setblocking(False)
    return listener
