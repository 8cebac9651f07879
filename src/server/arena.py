"""Shared memory that carries encoded frames from the endpoint to one executor.

A memfd, passed by descriptor: it has no name, so nothing is left behind however the processes die. Slots of equal
size, preceded by one state byte each. The endpoint owns the slots: it alone takes and frees them. The executor only
marks which of them it is working on, so that the endpoint can tell, when the executor has died, which frames died
with it. Pages are allocated when touched, and the slot freed last is taken first: memory follows the load.
"""

from __future__ import annotations

import mmap
import os

IDLE, RUNNING = 0, 1
_PAGE = mmap.PAGESIZE


class Arena:
    """Both ends' view of the memory.

    Args:
        fd: the memfd; the arena takes it over.
        slots: number of slots.
        slot_bytes: size of each.
    """

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        self.fd = fd
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._first = -(-slots // _PAGE) * _PAGE
        self._memory = mmap.mmap(fd, arena_bytes(slots, slot_bytes))
        self._view = memoryview(self._memory)

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Copy ``data`` into ``slot``.

        Raises:
            ValueError: it does not fit.
        """
        if len(data) > self.slot_bytes:
            raise ValueError(f"{len(data)} bytes do not fit into a slot of {self.slot_bytes}")
        start = self._first + slot * self.slot_bytes
        self._view[start : start + len(data)] = data

    def read(self, slot: int, length: int) -> memoryview:
        """The first ``length`` bytes of ``slot``, not copied; valid until the slot is freed."""
        start = self._first + slot * self.slot_bytes
        return self._view[start : start + length]

    def mark(self, slot: int, state: int) -> None:
        """Executor: note the state of ``slot``."""
        self._view[slot] = state

    def marked(self, slot: int) -> Marked:
        """Executor: ``slot`` is being worked on inside the block."""
        return Marked(self, slot)

    def running(self) -> frozenset[int]:
        """Slots that the executor is working on."""
        return frozenset(slot for slot in range(self.slots) if self._view[slot] == RUNNING)

    def clear(self) -> None:
        """Endpoint: no slot is being worked on, for a new executor is to come."""
        self._view[: self.slots] = bytes(self.slots)

    def close(self) -> None:
        """Unmap and close. Idempotent."""
        if self.fd >= 0:
            self._view.release()
            self._memory.close()
            os.close(self.fd)
            self.fd = -1


class Marked:
    """A block inside which a slot is marked as running."""

    __slots__ = ("_arena", "_slot")

    def __init__(self, arena: Arena, slot: int) -> None:
        self._arena = arena
        self._slot = slot

    def __enter__(self) -> None:
        self._arena.mark(self._slot, RUNNING)

    def __exit__(self, *_: object) -> None:
        self._arena.mark(self._slot, IDLE)


def arena_bytes(slots: int, slot_bytes: int) -> int:
    """Size of the whole arena."""
    return -(-slots // _PAGE) * _PAGE + slots * slot_bytes


def create_arena(name: str, slots: int, slot_bytes: int) -> Arena:
    """A fresh arena; ``name`` shows up in ``/proc/<pid>/fd`` only. Its descriptor is not inherited unless passed on."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, arena_bytes(slots, slot_bytes))
    return Arena(fd, slots, slot_bytes)
