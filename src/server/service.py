"""One server from start to end: children first, then the port, then events until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from moonjelly.errors import ConfigError, MoonjellyError
from moonjelly.inference import cuda_devices, resolve_runtime
from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.repository import Zoo, load_zoo
from moonjelly.rpc import messages
from moonjelly.units import NS_PER_S
from server import ipc
from server.arena import create_arena
from server.config import ServerOptions
from server.core import Core
from server.core import events as ev
from server.core.core import Settings
from server.core.placement import Rules
from server.driver import Driver
from server.endpoint import SERVICE, Endpoint
from server.logs import LogWriter
from server.processes import ExecutorLink, PlannerLink

_log = logging.getLogger(__name__)
_OVERSIZE = 2
"""Frames up to this many times the limit are read, so that they can be refused in words; larger ones end the stream."""
_MESSAGE_OVERHEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Listening:
    """The server is ready.

    Attributes:
        port: that it listens on.
        zoos: group to zoo name.
        device_kinds: per device.
    """

    port: int
    zoos: Mapping[str, str]
    device_kinds: tuple[str, ...]


class Service:
    """Children, endpoint and driver of one server. Use :meth:`run`."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._zoos = {group: load_zoo(place) for group, place in options.zoos.items()}
        self._runtime = resolve_runtime(options.runtime)
        self._gpus = cuda_devices() if self._runtime != "simulated" else 0
        self._devices = options.devices or self._gpus or 1
        self._executors: list[ExecutorLink] = []
        self._planner = PlannerLink(
            ipc.ConfigurePlanner(options.policy, options.seed, options.plan_budget_s * 1000.0),
            lambda reply: self._emit(ev.PlanMade(reply)),
            lambda: self._emit(ev.PlannerLost()),
        )
        self._driver: Driver | None = None
        self._stop = asyncio.Event()

    async def run(self, on_ready: Callable[[Listening], None]) -> Core:
        """Serve until SIGTERM or SIGINT; what the core knows at the end.

        Raises:
            MoonjellyError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            kinds = await self._start_children()
            return await self._serve(kinds, on_ready)
        finally:
            await asyncio.gather(self._planner.stop(), *(executor.stop() for executor in self._executors))

    async def _start_children(self) -> tuple[str, ...]:
        for device in range(self._devices):
            self._executors.append(self._executor(device))
        starting = [asyncio.ensure_future(executor.start()) for executor in self._executors]
        planner = asyncio.ensure_future(self._planner.start())
        stopped = asyncio.ensure_future(self._stop.wait())
        everything = asyncio.gather(*starting, planner)
        try:
            await asyncio.wait((everything, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                raise InterruptedStartError("stopped while the executors were warming up")
            await everything
        finally:
            stopped.cancel()
            everything.cancel()
        return tuple(ready.result().kind for ready in starting)

    def _executor(self, device: int) -> ExecutorLink:
        options = self._options

        def configure(arena_fd: int) -> ipc.Configure:
            return ipc.Configure(
                device=device,
                runtime=self._runtime,
                device_index=device % self._gpus if self._gpus else 0,
                kind=self._simulated_kind(),
                zoos={group: str(zoo.directory) for group, zoo in self._zoos.items()},
                dispatcher=options.dispatcher,
                max_batch=options.max_batch,
                resident=options.resident,
                threads=options.threads,
                decoders=options.decoders,
                speed=options.speed_of(device),
                scale=options.scale,
                seed=options.seed,
                arena_fd=arena_fd,
                slots=options.slots,
                slot_bytes=options.max_frame_bytes,
                max_pixels=options.max_pixels,
            )

        return ExecutorLink(
            configure,
            create_arena(f"moonjelly-frames-{device}", options.slots, options.max_frame_bytes),
            on_message=lambda message: self._driver.executor_message(message) if self._driver else None,
            on_up=lambda ready: self._emit(self._device_up(ready)),
            on_down=lambda reason, running: (
                self._driver.executor_down(device, reason, running) if self._driver else None
            ),
        )

    def _simulated_kind(self) -> str:
        if self._runtime != "simulated" or self._options.kind:
            return self._options.kind
        zoo = next(iter(self._zoos.values()))
        if not zoo.kinds():
            raise ConfigError(f"zoo '{zoo.name}' has no profile that a simulated device could follow")
        return zoo.kinds()[0]

    def _device_up(self, ready: ipc.Ready) -> ev.DeviceUp:
        return ev.DeviceUp(ready.device, ready.kind, next(iter(self._zoos)))

    def _emit(self, event: ev.Event) -> None:
        if self._driver is not None:
            self._driver.emit(event)

    async def _serve(self, kinds: tuple[str, ...], on_ready: Callable[[Listening], None]) -> Core:
        options = self._options
        core = Core(self._settings(kinds))
        logs = LogWriter(options.out)
        await logs.ready()
        driver = self._driver = Driver(core, self._executors, self._planner, logs)
        endpoint = driver.endpoint = Endpoint(driver.emit, options.token)
        server, health_servicer, port = await self._listen(endpoint)
        try:
            for device, kind in enumerate(kinds):
                driver.emit(ev.DeviceUp(device, kind, next(iter(self._zoos))))
            on_ready(Listening(port, {group: zoo.name for group, zoo in self._zoos.items()}, kinds))
            await self._stop.wait()
            await health_servicer.enter_graceful_shutdown()
            await self._drain(endpoint, driver)
        finally:
            await server.stop(0.0)
            driver.close()
            self._driver = None
            await logs.close()
        return core

    def _settings(self, kinds: tuple[str, ...]) -> Settings:
        options = self._options
        profiles = {
            (kind, group): zoo.profile(kind, ProfileOptions(max_batch=options.max_batch))
            for kind in sorted(set(kinds))
            for group, zoo in self._zoos.items()
        }
        return Settings(
            zoos={group: _zoo_info(group, zoo, profiles[kinds[0], group]) for group, zoo in self._zoos.items()},
            rules=Rules(profiles, options.latency_factor, options.rho),
            speeds=[options.speed_of(device) for device in range(self._devices)],
            slots=options.slots,
            policy=options.policy,
            interval_ns=round(options.interval_s * NS_PER_S),
            plan_budget_ns=round(options.plan_budget_s * NS_PER_S),
            session_ttl_ns=round(options.session_ttl_s * NS_PER_S),
            max_sessions=options.max_sessions,
            max_frame_bytes=options.max_frame_bytes,
            max_outstanding=options.max_outstanding,
        )

    async def _listen(self, endpoint: Endpoint) -> tuple[grpc.aio.Server, Any, int]:
        options = self._options
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
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = f"{options.host}:{options.port}"
        try:
            credentials = _credentials(options.tls_cert, options.tls_key)
            port = (
                server.add_insecure_port(address)
                if credentials is None
                else server.add_secure_port(address, credentials)
            )
        except RuntimeError as fault:
            raise ConfigError(
                f"cannot listen on {address}: the port is in use or may not be bound; choose another with --port"
            ) from fault
        await server.start()
        return server, servicer, int(port)

    async def _drain(self, endpoint: Endpoint, driver: Driver) -> None:
        """Tell everybody, then wait until they have gone, but not for ever."""
        driver.emit(ev.DrainBegan(self._options.grace_s, "the server is stopping"))
        try:
            await asyncio.wait_for(endpoint.empty(), self._options.grace_s)
        except asyncio.TimeoutError:
            _log.warning("%d streams did not end within %g s", endpoint.streams, self._options.grace_s)


class InterruptedStartError(MoonjellyError):
    """Told to stop before it was up."""


def _credentials(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    if certificate is None or key is None:
        return None
    try:
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except OSError as fault:
        raise ConfigError(f"TLS files cannot be read: {fault}") from fault


def _zoo_info(group: str, zoo: Zoo, profile: Profile) -> messages.ZooInfo:
    variants = tuple(
        messages.ZooVariant(variant.name, variant.input_size, accuracy)
        for variant, accuracy in zip(zoo.variants, profile.accuracy, strict=True)
    )
    return messages.ZooInfo(zoo.name, group, variants, zoo.classes)
