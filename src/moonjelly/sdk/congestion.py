"""Which congestion control TCP uses for a connection, whatever the host's default is.

gRPC has no option for it and hands out none of its sockets. Linux lets every process choose for its own connections,
and they are found among its descriptors by the address of their peer.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

Peer = tuple[str, int]
"""Numeric address and port."""
_DESCRIPTORS = Path("/proc/self/fd")


def choose(algorithm: str, peers: Collection[Peer]) -> int:
    """Let every TCP connection of this process to one of ``peers`` use ``algorithm``; how many there are.

    Raises:
        OSError: the system does not have it, does not let this user choose it, or lists no descriptors: it is no Linux.
    """
    wanted, count = {_plain(*peer) for peer in peers}, 0
    for connection in _connections():
        with connection:
            try:
                host, port, *_ = connection.getpeername()
            except OSError:
                continue  # it listens, connects still, or has been reset
            if _plain(host, port) in wanted:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
                count += 1
    return count


def _plain(host: str, port: int) -> Peer:
    """The same for an IPv4 address in an IPv6 socket, as gRPC opens them, as without."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port


def _connections() -> Iterator[socket.socket]:
    """Each TCP socket of this process, on a descriptor of the caller's own."""
    for entry in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # closed since it was listed
            if not os.readlink(_DESCRIPTORS / entry).startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry)))
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                yield found
            else:
                found.close()
