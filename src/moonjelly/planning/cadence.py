"""When a server plans: at an interval, and soon after something happened that the plan in force does not know."""

from __future__ import annotations

from moonjelly.units import NS_PER_S

INTERVAL_NS = NS_PER_S // 2
"""Between planning runs that nothing asks for (Jellyfish, section III)."""
MIN_INTERVAL_NS = NS_PER_S // 10
"""Between any two: a crowd that joins, or links that all change at once, cost a few plans, not one each."""


def asked_run_ns(last_ns: int | None, now_ns: int, interval_ns: int = INTERVAL_NS) -> int:
    """When the run may begin that something asks for at ``now_ns``.

    Args:
        last_ns: begin of the latest run; ``None``: there was none.
        now_ns: the present.
        interval_ns: between periodic runs; one that is shorter than :data:`MIN_INTERVAL_NS` is the floor itself.
    """
    return now_ns if last_ns is None else max(now_ns, last_ns + min(MIN_INTERVAL_NS, interval_ns))


def periodic_run_ns(last_ns: int, interval_ns: int = INTERVAL_NS) -> int:
    """When the run after the one at ``last_ns`` begins if nothing asks for one."""
    return last_ns + interval_ns
