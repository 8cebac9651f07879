"""Which slots of a device's arena are free."""

from __future__ import annotations


class SlotPool:
    """Which slots are free; last freed, first taken."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, -1, -1))
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """A free slot, or ``None``."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._taken.add(slot)
        return slot

    def free(self, slot: int) -> None:
        """Give ``slot`` back.

        Raises:
            ValueError: it is not taken.
        """
        if slot not in self._taken:
            raise ValueError(f"slot {slot} is freed twice")
        self._taken.remove(slot)
        self._free.append(slot)

    def __len__(self) -> int:
        return len(self._free)
