"""Which congestion control TCP uses for a connection, whatever the host's default is.

gRPC has no option for it. Linux lets every process choose for its own connections.
"""

from __future__ import annotations

import socket
from collections.abc import Collection

from moonjelly.sdk import sockets
from moonjelly.sdk.sockets import Peer


def choose(algorithm: str, peers: Collection[Peer]) -> int:
    """Let every TCP connection of this process to one of ``peers`` use ``algorithm``; how many there are.

    Raises:
        OSError: the system does not have it, does not let this user choose it, or lists no descriptors: it is no Linux.
    """
    count = 0
    for _, connection in sockets.to(peers):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
        count += 1
    return count
