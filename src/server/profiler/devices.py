"""The devices at work: one process each, handed one (variant, batch size) after another."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Iterator
from dataclasses import dataclass

from moonjelly.errors import ConfigError, ExecutorError, MoonjellyError
from server import ipc
from server.channel import PeerGone
from server.child import Child, start
from server.profiler.options import ProfilerOptions

_STOP_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One (variant, batch size) to measure."""

    variant: str
    batch: int


@dataclass(frozen=True, slots=True)
class Event:
    """What a device says of its cell: so many batches have run; with ``times_ms`` it is done."""

    cell: Cell
    batches: int
    times_ms: tuple[float, ...] | None = None


class Devices:
    """Started device processes. Use :func:`started`."""

    def __init__(self, children: list[Child], infos: list[ipc.Ready], options: ProfilerOptions) -> None:
        self._children = children
        self._options = options
        self.info = infos[0]
        kinds = {(info.kind, info.name) for info in infos}
        if len(kinds) > 1:
            facts = ", ".join(sorted(name for _, name in kinds))
            raise ConfigError(f"the devices differ ({facts}) and need a profile each; use num_gpus = 1")

    def measure(self, cells: list[Cell]) -> Iterator[Event | None]:
        """Measure all cells, a variant's on one device as far as possible; yields ``None`` a few times a second.

        Raises:
            ExecutorError: a device failed or its process died.
        """
        waiting: dict[str, list[Cell]] = {}
        for cell in cells:
            waiting.setdefault(cell.variant, []).append(cell)
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.channel, selectors.EVENT_READ, child)
            held: dict[int, Cell] = {}
            for child in self._children:
                self._hand_out(child, None, waiting, held)
            while held:
                ready = selector.select(timeout=0.2)
                yield None
                for key, _ in ready:
                    child = key.data
                    cell = held[child.process.pid]
                    event = _event(cell, _receive(child, f"variant '{cell.variant}' at batch {cell.batch}"))
                    if event.times_ms is not None:
                        del held[child.process.pid]
                        self._hand_out(child, cell.variant, waiting, held)
                    yield event

    def _hand_out(self, child: Child, last: str | None, waiting: dict[str, list[Cell]], held: dict[int, Cell]) -> None:
        """Give the next cell of its variant, else of one that no device has begun, else of any."""
        if not waiting:
            return
        begun = {cell.variant for cell in held.values()}
        fresh = (variant for variant in waiting if variant not in begun)
        variant = last if last in waiting else next(fresh, next(iter(waiting)))
        assert variant is not None
        cell = waiting[variant].pop(0)
        if not waiting[variant]:
            del waiting[variant]
        held[child.process.pid] = cell
        options = self._options
        child.channel.send(
            ipc.Measure(
                cell.variant,
                cell.batch,
                options.num_batches,
                options.limit_s,
                options.max_batch,
                processor_time=options.clock == "cpu",
            )
        )


@contextlib.contextmanager
def started(options: ProfilerOptions, zoo_directory: str) -> Iterator[Devices]:
    """Start a process per device and stop them at the end.

    Raises:
        MoonjellyError: one of them refuses, with its reason.
    """
    children: list[Child] = []
    try:
        for device in range(options.num_gpus):
            child = start("server.profiler.worker")
            children.append(child)
            child.channel.send(
                ipc.ConfigureProfiler(
                    device, options.runtime, zoo_directory, options.kind or "", options.threads, options.seed
                )
            )
        yield Devices(children, [_ready(child) for child in children], options)
    finally:
        for child in children:
            child.stop(_STOP_PATIENCE_S)


def _ready(child: Child) -> ipc.Ready:
    message = _receive(child, "start")
    if isinstance(message, ipc.Refused):
        raise MoonjellyError(message.error)
    assert isinstance(message, ipc.Ready)
    return message


def _receive(child: Child, doing: str) -> ipc.Message:
    try:
        return child.channel.receive()
    except PeerGone:
        raise ExecutorError(f"a device's process died in {doing} (exit status {child.process.wait()})") from None


def _event(cell: Cell, message: ipc.Message) -> Event:
    if isinstance(message, ipc.Trouble):
        raise ExecutorError(f"'{cell.variant}' at batch {cell.batch}: {message.error}")
    if isinstance(message, ipc.Measuring):
        return Event(cell, message.batches)
    assert isinstance(message, ipc.Measured)
    return Event(cell, len(message.times_ms), message.times_ms)
