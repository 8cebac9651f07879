"""Measures what a zoo reaches on this machine's devices: ``moonjelly profile`` and ``src/server/profiler/run.sh``.

Described in ``docs/profiling.md``.
"""

from server.profiler.options import ProfilerOptions
from server.profiler.run import ProfileRun, run_profile

__all__ = ["ProfileRun", "ProfilerOptions", "run_profile"]
