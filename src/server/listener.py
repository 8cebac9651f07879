"""The port: a gRPC server with our stream, health and reflection on it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from moonjelly.errors import ConfigError
from server.config import ServerOptions
from server.endpoint import SERVICE, Endpoint

_OVERSIZE = 2
"""Frames up to this many times the limit are read, so that they can be refused in words; larger ones end the stream."""
_MESSAGE_OVERHEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound port. Clients that come before :meth:`open` wait in the kernel's queue."""

    server: grpc.aio.Server
    health: Any
    port: int

    async def open(self) -> None:
        """Take streams."""
        await self.server.start()
        for service in ("", SERVICE):
            await self.health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def shut(self) -> None:
        """Tell health checks that it is about to stop."""
        await self.health.enter_graceful_shutdown()

    async def close(self) -> None:
        """End all streams and free the port."""
        await self.server.stop(0.0)


def bind(options: ServerOptions, endpoint: Endpoint) -> Listener:
    """Bind the port, so that one in use is noticed before anything is loaded.

    Raises:
        ConfigError: it is in use or may not be bound, or the TLS files cannot be read.
    """
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _OVERSIZE * options.max_frame_bytes + _MESSAGE_OVERHEAD),
            ("grpc.keepalive_time_ms", 5_000),
            ("grpc.keepalive_timeout_ms", 2_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        )
    )
    server.add_generic_rpc_handlers((endpoint.handler(),))
    servicer: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"{options.host}:{options.port}"
    _require_free(options.host, options.port)
    credentials = _credentials(options.tls_cert, options.tls_key)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as fault:
        raise ConfigError(
            f"cannot listen on {address}: the port is in use or may not be bound; choose another with --port or --host"
        ) from fault
    return Listener(server, servicer, int(port))


def _require_free(host: str, port: int) -> None:
    """Ask the system first: its reason is better than gRPC's, which also logs a line of its own."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as fault:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {fault.strerror}; choose another with --port or --host"
        ) from fault


def _credentials(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    if certificate is None or key is None:
        return None
    try:
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except OSError as fault:
        raise ConfigError(f"TLS files cannot be read: {fault}") from fault
