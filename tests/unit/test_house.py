"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src" / "moonjelly"

DECIDING = [
    *(
        LIBRARY / f"{name}.py"
        for name in (
            "types",
            "units",
            "errors",
            "profiles",
            "reference",
            "telemetry",
            "config",
            "summary",
            "device_speed",
        )
    ),
    *(
        path
        for name in ("network", "adaptation", "planning", "dispatching")
        for path in LIBRARY.glob(f"{name}*/**/*.py")
    ),
    *(
        path
        for name in ("network", "adaptation", "outage", "safety_margin", "sender", "placement", "dispatching")
        for path in LIBRARY.glob(f"{name}.py")
    ),
    *(ROOT / "src" / "server" / "core").glob("*.py"),
]
FORBIDDEN_MODULES = {
    "asyncio", "concurrent", "ctypes", "datetime", "grpc", "logging", "multiprocessing", "os", "queue", "random",
    "secrets", "select", "signal", "socket", "subprocess", "threading", "time", "torch", "uuid",
}  # fmt: skip
ACTING_MODULES = {"asyncio", "multiprocessing", "random", "socket", "subprocess", "threading", "time"}
ACTING = ("clock.py", "inference/", "models/", "pipe.py", "rpc/", "scenes/", "sdk/")
"""Where the library runs networks and draws pictures, touches the wire, or listens to a parent."""
GLOBAL_RANDOMNESS = re.compile(r"np\.random\.(?!default_rng|Generator|SeedSequence|PCG64)\w+")
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", [p for p in DECIDING if p.exists()], ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_the_deciding_ring_has_no_clock_randomness_socket_process_thread_or_log(path: Path) -> None:
    assert not imported(path) & FORBIDDEN_MODULES
    assert not GLOBAL_RANDOMNESS.findall(path.read_text(encoding="utf-8"))


def test_the_library_starts_no_process_and_reads_no_clock_but_where_it_computes_or_touches_the_wire() -> None:
    names = {str(path.relative_to(LIBRARY)): imported(path) for path in LIBRARY.rglob("*.py")}
    assert [name for name in names if not name.startswith(ACTING) and names[name] & ACTING_MODULES] == []


def test_planning_is_light_to_import() -> None:
    heavy = ("torch", "grpc", "cv2", "docplex", "highspy")
    probe = f"import sys, moonjelly.planning; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", *patterns], capture_output=True, text=True, check=True, cwd=ROOT)
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).exists()]


def test_no_pickle_no_shell_no_kill_by_name() -> None:
    bad = re.compile(r"pickle\.loads?\(|shell=True|yaml\.load\(|os\.system\(|\bpkill\b|\bkillall\b")
    found = [
        f"{path.relative_to(ROOT)}: {hit}"
        for path in tracked("src/*.py", "network_shaping/*.py", "plots/*.py")
        for hit in bad.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_requirements_name_no_index() -> None:
    for path in tracked("requirements*", "pyproject.toml"):
        assert not re.search(r"https?://|--index-url|--find-links|file:", path.read_text(encoding="utf-8")), path


def test_torch_is_pinned_once() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r"torch\b", line)] == ["torch==2.13.0"]
