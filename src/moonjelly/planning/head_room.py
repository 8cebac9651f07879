"""How much a device may be offered: its throughput less room for frames that do not come when they should."""

from __future__ import annotations

from moonjelly.profiles import Profile

DEFAULT_RHO = 0.9
"""Share of a device's throughput that may be planned; chosen by measurement (``docs/planning.md``)."""
FULL_HEAD_ROOM_MS = 40.0
"""A batch that takes longer keeps no more time free than one of this length.

Jitter moves arrivals by the same milliseconds whatever runs, and a planned batch is about half of what the deadline
leaves: a fixed share would reserve ever more time just where frames can wait longest (``docs/planning.md``).
"""


def limit_fps(profile: Profile, variant: int, batch: int, speed: float, rho: float) -> float:
    """Frames/s that must not be reached on a device which runs ``variant`` at ``batch``.

    Args:
        profile: of the device's kind.
        variant: index into the profile.
        batch: planned size.
        speed: factor on the profile.
        rho: share of the throughput that may be planned for batches of up to :data:`FULL_HEAD_ROOM_MS`.
    """
    latency_ms = profile.latency(variant, batch, speed)
    share = rho if latency_ms <= FULL_HEAD_ROOM_MS else 1.0 - (1.0 - rho) * FULL_HEAD_ROOM_MS / latency_ms
    return share * profile.throughput(variant, batch, speed)
