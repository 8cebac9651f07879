"""Message channels between the processes of one server: inherited socketpairs, one packet per message."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Iterator

from server import ipc

_BUFFER_BYTES = 4 << 20
_PACKET_BYTES = 1 << 20
"""Largest message; a plan for a few thousand clients takes a quarter of this."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends: ``SOCK_SEQPACKET``, so that a message is sent whole or not at all."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ours, theirs


class Channel:
    """One end.

    Raises (all methods):
        EOFError: the other process has closed its end or died.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        # Made once: a fresh buffer of this size per message is a mapping made and unmapped, which stops all threads.
        self._packet = memoryview(bytearray(_PACKET_BYTES))
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """Of the socket, for polling."""
        return self._socket.fileno()

    def send(self, message: ipc.Message) -> bool:
        """Send one message; false when the socket does not block and its buffer is full."""
        try:
            self._socket.send(ipc.encode(message))
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError("the other process has gone") from None
        return True

    def receive(self) -> ipc.Message:
        """The next message; blocks unless the socket does not."""
        try:
            size = self._socket.recv_into(self._packet)
        except ConnectionResetError:
            size = 0
        if not size:
            raise EOFError("the other process has gone")
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


def inherited() -> Channel:
    """In a child: the channel whose descriptor the parent gave as the first argument."""
    return Channel(socket.socket(fileno=int(sys.argv[1])))
