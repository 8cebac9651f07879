"""When a device runs which frames: ``(now, queue, plan) -> Run | Drop | WaitUntil``.

Pure: the live executors and the simulation call the same code with their own clocks. See ``docs/dispatching.md``.
"""

from moonjelly.dispatching.decisions import Decision, DevicePlan, Dispatcher, Drop, Run, WaitUntil
from moonjelly.dispatching.queue import DeadlineQueue, QueuedFrame
from moonjelly.dispatching.registry import DEFAULT, create, names

__all__ = [
    "DEFAULT",
    "DeadlineQueue",
    "Decision",
    "DevicePlan",
    "Dispatcher",
    "Drop",
    "QueuedFrame",
    "Run",
    "WaitUntil",
    "create",
    "names",
]
