"""The TCP connections of this process to a server: gRPC hands out none of its sockets.

Linux lists a process's descriptors, and a connection is found among them by the address of its peer. What it is called
there, its inode, is never the name of two sockets that are open at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

Peer = tuple[str, int]
"""Numeric address and port."""
_DESCRIPTORS = Path("/proc/self/fd")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER``: for no time at all."""


async def peers_of(address: str) -> set[Peer]:
    """What ``host:port`` stands for.

    Raises:
        OSError: it cannot be resolved.
    """
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return {(str(peer[0]), int(peer[1])) for *_, peer in found}


def names() -> frozenset[str]:
    """Of all sockets of this process; none where the system lists no descriptors."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # closed since it was listed
                found.add(os.readlink(_DESCRIPTORS / entry))
    return frozenset(found)


def to(peers: Collection[Peer]) -> Iterator[tuple[str, socket.socket]]:
    """Each connection to one of ``peers``: its name, and a socket that is open while the caller looks at it.

    Raises:
        OSError: the system lists no descriptors: it is no Linux.
    """
    wanted = {_plain(*peer) for peer in peers}
    for name, connection in connections():
        with connection:
            try:
                host, port, *_ = connection.getpeername()
            except OSError:
                continue  # it listens, connects still, or has been reset
            if _plain(host, port) in wanted:
                yield name, connection


def connections() -> Iterator[tuple[str, socket.socket]]:
    """Each TCP socket of this process by its name, on a descriptor of the caller's own.

    Raises:
        OSError: the system lists no descriptors: it is no Linux.
    """
    for entry in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # closed since it was listed
            name = os.readlink(_DESCRIPTORS / entry)
            if not name.startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry)))
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                yield name, found
            else:
                found.close()


def reset_on_close(name: str) -> None:
    """Let the connection of that name, if it is still open, end with a reset: what waits in it is not sent again.

    Raises:
        OSError: the system lists no descriptors: it is no Linux.
    """
    for other, connection in connections():
        with connection:
            if other == name:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _plain(host: str, port: int) -> Peer:
    """The same for an IPv4 address in an IPv6 socket, as gRPC opens them, as without."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port
