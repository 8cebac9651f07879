"""One server from start to end: children first, then the port, then events until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moonjelly.errors import ConfigError, MoonjellyError
from moonjelly.inference import cuda_devices, resolve_runtime
from moonjelly.profiles import Profile, ProfileOptions
from moonjelly.repository import Zoo, load_zoo
from moonjelly.rpc import messages
from moonjelly.units import NS_PER_S
from server import ipc
from server.arena import create_arena
from server.capacity import check_plan_fits, message_limit_bytes
from server.config import ServerOptions
from server.core import Core
from server.core import events as ev
from server.core.placement import Rules
from server.core.settings import Settings
from server.driver import Driver
from server.endpoint import Endpoint
from server.listener import Listener, bind
from server.logs import LogWriter
from server.processes import ExecutorLink, PlannerLink, StartError

_log = logging.getLogger(__name__)


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
        self._endpoint = Endpoint(self._emit, options.token)
        self._driver: Driver | None = None
        self._early_death = ""
        self._stop = asyncio.Event()

    async def run(self, on_ready: Callable[[Listening], None]) -> Core:
        """Serve until SIGTERM or SIGINT; what the core knows at the end.

        Raises:
            MoonjellyError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        listener = bind(self._options, self._endpoint)
        logs = LogWriter(self._options.out)
        try:
            kinds = await self._start_children(logs)
            return await self._serve(kinds, listener, logs, on_ready)
        finally:
            await listener.close()
            await asyncio.gather(logs.close(), self._planner.stop(), *(one.stop() for one in self._executors))

    async def _start_children(self, logs: LogWriter) -> tuple[str, ...]:
        """Wait until all say that they are ready; the device kinds."""
        for device in range(self._devices):
            self._executors.append(self._executor(device))
        starting = [asyncio.ensure_future(executor.start()) for executor in self._executors]
        stopped = asyncio.ensure_future(self._stop.wait())
        everything = asyncio.gather(logs.ready(), self._planner.start(), *starting)
        try:
            await asyncio.wait((everything, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                raise InterruptedStartError("stopped while the executors were warming up")
            await everything
        finally:
            stopped.cancel()
            everything.cancel()
            await asyncio.gather(everything, return_exceptions=True)
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
                answers=options.answer_places,
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
            on_down=lambda reason, running: self._executor_down(device, reason, running),
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

    def _executor_down(self, device: int, reason: str, running: frozenset[int]) -> None:
        if self._driver is None:
            self._early_death = f"the executor of device {device} died while others were warming up: {reason}"
        else:
            self._driver.executor_down(device, reason, running)

    async def _serve(
        self, kinds: tuple[str, ...], listener: Listener, logs: LogWriter, on_ready: Callable[[Listening], None]
    ) -> Core:
        if self._early_death:
            raise StartError(self._early_death, 1)
        settings = self._settings(kinds)
        check_plan_fits(settings, kinds, message_limit_bytes())
        core = Core(settings)
        driver = self._driver = Driver(core, self._executors, self._planner, logs, self._endpoint)
        for device, kind in enumerate(kinds):
            driver.emit(ev.DeviceUp(device, kind, next(iter(self._zoos))))
        try:
            await listener.open()
            zoos = {group: zoo.name for group, zoo in self._zoos.items()}
            on_ready(Listening(listener.port, zoos, kinds))
            await self._stop.wait()
            await listener.shut()
            await self._drain(self._endpoint, driver)
        finally:
            await listener.close()
            driver.close()
            self._driver = None
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
            rules=Rules(profiles, options.fixed_factor, options.rho),
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

    async def _drain(self, endpoint: Endpoint, driver: Driver) -> None:
        """Tell everybody, then wait until they have gone, but not for ever."""
        reason = "the server is stopping"
        driver.emit(ev.DrainBegan(self._options.grace_s, reason))
        endpoint.refuse_silent(reason)
        try:
            await asyncio.wait_for(endpoint.empty(), self._options.grace_s)
        except asyncio.TimeoutError:
            _log.warning("%d streams did not end within %g s", endpoint.streams, self._options.grace_s)


class InterruptedStartError(MoonjellyError):
    """Told to stop before it was up."""


def _zoo_info(group: str, zoo: Zoo, profile: Profile) -> messages.ZooInfo:
    variants = tuple(
        messages.ZooVariant(variant.name, variant.input_size, accuracy)
        for variant, accuracy in zip(zoo.variants, profile.accuracy, strict=True)
    )
    return messages.ZooInfo(zoo.name, group, variants, zoo.classes)
