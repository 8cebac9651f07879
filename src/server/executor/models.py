"""Which variants are resident on a device, and loading others beside the one that serves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psutil
from msgspec import structs

from moonjelly.errors import MoonjellyError
from moonjelly.inference.protocol import Executor
from moonjelly.inference.simulated import Answers
from moonjelly.profiles import Profile
from moonjelly.repository import Zoo
from moonjelly.types import Detections, Variant
from server import ipc
from server.executor.intake import Loaded

_SPARE_MEMORY = 0.15
"""Share of the host's memory that preloading leaves alone."""


def qualified(group: str, variant: Variant) -> Variant:
    """``variant`` under a name that is unique over all groups."""
    return replace(variant, name=f"{group}/{variant.name}")


def merged_profile(profiles: Mapping[str, Profile]) -> Profile:
    """One profile over the variants of all groups, for a simulated device."""
    width = min(profile.max_batch for profile in profiles.values())
    return Profile(
        device_kind=next(iter(profiles.values())).device_kind,
        variants=tuple(qualified(group, variant) for group, p in profiles.items() for variant in p.variants),
        accuracy=tuple(value for p in profiles.values() for value in p.accuracy),
        latency_ms=tuple(row[:width] for p in profiles.values() for row in p.latency_ms),
    )


@dataclass(frozen=True, slots=True)
class GroupAnswers:
    """What a simulated device of several groups sees: each group's own answers.

    Attributes:
        by_group: group to its answers, which know its variants by the zoo's names.
    """

    by_group: Mapping[str, Answers]

    def detections(self, variant: str, stream: str, frame_id: int) -> Detections:
        """See :class:`~moonjelly.inference.simulated.Answers`; ``variant`` is :func:`qualified`."""
        group, _, name = variant.partition("/")
        return self.by_group[group].detections(name, stream, frame_id)


class ResidentModels:
    """Loads variants in a second thread, nearest to the active one first, and unloads the farthest.

    ``request`` and ``trim`` belong to the thread that infers; loading happens in the loader's own.

    Args:
        executor: whose variants these are.
        zoos: by group.
        max_batch: to warm up to.
        capacity: variants of one group that stay resident; 0 for all.
        report: called from the loader with what it has loaded.
    """

    def __init__(
        self,
        executor: Executor,
        zoos: Mapping[str, Zoo],
        max_batch: int,
        capacity: int,
        report: Callable[[Loaded], None],
    ) -> None:
        self._executor = executor
        self._zoos = zoos
        self._max_batch = max_batch
        self._capacity = capacity
        self._report = report
        self._orders: queue.SimpleQueue[ipc.Serve | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)

    def start(self, group: str, variant: int) -> None:
        """Load the variants around ``variant`` of ``group`` in the calling thread, then start the loader.

        Raises:
            MoonjellyError: one of them cannot be loaded.
        """
        for index in self._neighbourhood(group, variant):
            self._load(group, index)
        self._thread.start()

    def is_resident(self, serve: ipc.Serve) -> bool:
        """Whether the executor accepts it now."""
        return self._name(serve.group, serve.variant) in self._executor.resident()

    def request(self, serve: ipc.Serve) -> None:
        """Load ``serve``'s variant, report it, then load its neighbourhood; a later request comes first."""
        self._orders.put(serve)

    def trim(self, group: str, variant: int) -> None:
        """Unload what is outside the neighbourhood of the active variant."""
        if self._capacity == 0:
            return
        keep = {self._name(group, index) for index in self._neighbourhood(group, variant)}
        for name in self._executor.resident() - keep:
            self._executor.unload(name)

    def close(self) -> None:
        """Stop the loader after what it is loading now."""
        self._orders.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (serve := self._orders.get()) is not None:
            if not self._orders.empty():
                continue
            try:
                self._load(serve.group, serve.variant)
            except MoonjellyError as fault:
                self._report(Loaded(serve, error=str(fault)))
                continue
            self._report(Loaded(serve))
            self._preload(serve)

    def _preload(self, serve: ipc.Serve) -> None:
        for index in self._neighbourhood(serve.group, serve.variant):
            if not self._orders.empty() or _memory_is_short():
                return
            try:
                if self._load(serve.group, index):
                    self._report(Loaded(structs.replace(serve, variant=index), ahead=True))
            except MoonjellyError as fault:
                self._report(Loaded(structs.replace(serve, variant=index), error=str(fault)))

    def _load(self, group: str, index: int) -> bool:
        """Whether it had to be loaded."""
        zoo = self._zoos[group]
        variant = zoo.variants[index]
        named = qualified(group, variant)
        if named.name in self._executor.resident():
            return False
        source = zoo.source(variant.model, with_weights=self._executor.needs_pixels)
        self._executor.load(named, source, self._max_batch)
        return True

    def _neighbourhood(self, group: str, variant: int) -> list[int]:
        indices = sorted(range(len(self._zoos[group].variants)), key=lambda index: (abs(index - variant), index))
        return indices[: self._capacity] if self._capacity else indices

    def _name(self, group: str, index: int) -> str:
        return qualified(group, self._zoos[group].variants[index]).name


def _memory_is_short() -> bool:
    memory = psutil.virtual_memory()
    return bool(memory.available < _SPARE_MEMORY * memory.total)
