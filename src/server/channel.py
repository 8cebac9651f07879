"""Message channels between the processes of one server: inherited socketpairs, one packet per message."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator

from moonjelly.errors import ProtocolError
from server import ipc

_BUFFER_BYTES = 4 << 20
_PACKET_BYTES = 1 << 20
"""Largest message that a receiver takes; a plan for four thousand clients and sixteen variants fits."""
_KERNELS_BYTES = 32
"""Of the send buffer, what a packet may not use."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends: ``SOCK_SEQPACKET``, so that a message is sent whole or not at all."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ours, theirs


def limit_bytes(end: socket.socket) -> int:
    """Largest message that can be sent from ``end``: the host may grant a smaller buffer than asked for."""
    return min(_PACKET_BYTES, end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _KERNELS_BYTES)


class PeerGone(EOFError):
    """The other process has closed its end or died."""

    def __init__(self) -> None:
        super().__init__("the other process has gone")


class Channel:
    """One end.

    Raises (all methods):
        PeerGone: the other process has closed its end or died.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._limit_bytes = limit_bytes(end)
        # Made once: a fresh buffer of this size per message is a mapping made and unmapped, which stops all threads.
        self._packet = memoryview(bytearray(_PACKET_BYTES))
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """Of the socket, for polling."""
        return self._socket.fileno()

    def send(self, message: ipc.Message) -> bool:
        """Send one message; false when the socket does not block and its buffer is full.

        Raises:
            ProtocolError: it is too large.
        """
        data = ipc.encode(message)
        if len(data) > self._limit_bytes:
            raise ProtocolError(
                f"a {type(message).__name__} of {len(data)} bytes; a message between processes has at most "
                f"{self._limit_bytes} on this host"
            )
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            raise PeerGone from None
        return True

    def receive(self) -> ipc.Message:
        """The next message; blocks unless the socket does not."""
        try:
            size = self._socket.recv_into(self._packet)
        except ConnectionResetError:
            size = 0
        if not size:
            raise PeerGone
        return ipc.decode(self._packet[:size])

    def ready(self) -> Iterator[ipc.Message]:
        """All messages that are there now, without blocking."""
        while self._poll.poll(0):  # to receive in vain and catch the error takes four times as long
            yield self.receive()

    def set_blocking(self, blocking: bool) -> None:
        """Whether :meth:`send` and :meth:`receive` wait."""
        self._socket.setblocking(blocking)

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


@contextlib.contextmanager
def inherited() -> Iterator[Channel]:
    """In a child: the channel whose descriptor the parent gave as the first argument.

    The block ends without a word when the parent goes, however early: what stopped the parent is its to tell.
    """
    with contextlib.suppress(PeerGone):
        yield Channel(socket.socket(fileno=int(sys.argv[1])))
