"""What a job's supervisor keeps count of: processor time, and the lease that keeps the job alive."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Processor:
    """Time on the processor, and time waited for one, of a process and all its descendants, also ended ones."""

    root: int
    seen: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    base: tuple[int, int, int] = (0, 0, 0)
    since: float = field(default_factory=time.monotonic)

    def sample(self) -> None:
        """Look at every living process; what has ended keeps its last figures."""
        pending = [self.root]
        while pending:
            pid = pending.pop()
            ran = waited = turns = 0
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    on_cpu, in_queue, slices = (task / "schedstat").read_text().split()
                    ran += int(on_cpu)
                    waited += int(in_queue)
                    turns += int(slices)
                    pending += [int(word) for word in (task / "children").read_text().split()]
            except (OSError, ValueError):
                continue  # it ended while it was looked at
            before = self.seen.get(pid, (0, 0, 0))
            self.seen[pid] = max(before[0], ran), max(before[1], waited), max(before[2], turns)

    def restart(self) -> None:
        """Count from now on."""
        self.sample()
        self.base, self.since = self._sums(), time.monotonic()

    def told(self) -> dict[str, float]:
        """Seconds, and turns on a processor, since the last :meth:`restart`."""
        ran, waited, turns = self._sums()
        return {
            "cpu_s": (ran - self.base[0]) / 1e9,
            "waited_s": (waited - self.base[1]) / 1e9,
            "turns": turns - self.base[2],
            "wall_s": time.monotonic() - self.since,
        }

    def _sums(self) -> tuple[int, int, int]:
        ran, waited, turns = (sum(figures[place] for figures in self.seen.values()) for place in range(3))
        return ran, waited, turns


@dataclass
class Lease:
    """A file whose owner touches it now and then; ``expired`` by this host's monotonic clock, whatever its date is."""

    path: Path
    seconds: float | None
    stamp: int = 0
    renewed: float = field(default_factory=time.monotonic)

    def expired(self) -> bool:
        """Whether nobody has touched the file for too long."""
        if self.seconds is None:
            return False
        try:
            stamp = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp != self.stamp:
            self.stamp, self.renewed = stamp, time.monotonic()
        return time.monotonic() - self.renewed > self.seconds
