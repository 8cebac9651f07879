"""What a figure was measured on: machine and versions, for summaries and benchmarks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from moonjelly.version import __version__

PACKAGES = ("torch", "onnxruntime", "grpcio", "protobuf", "numpy", "opencv-python-headless", "simplejpeg", "av")


def versions() -> dict[str, str]:
    """Versions of moonjelly, Python and of the packages that matter for speed; absent ones are left out."""
    found = {"moonjelly": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Operating system, processor, usable cores, memory in GiB and the load when asked."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
