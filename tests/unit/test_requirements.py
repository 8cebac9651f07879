"""Every third-party import is declared: in requirements.in, and in the extra of the role whose host runs it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {
    "moonjelly": ROOT / "src", "server": ROOT / "src", "client": ROOT / "src", "simulation": ROOT / "src",
    "experiment_manager": ROOT / "src", "cli": ROOT / "src", "network_shaping": ROOT, "plots": ROOT,
}  # fmt: skip
PACKAGES = {
    "cv2": "opencv-python-headless", "google": "protobuf", "grpc": "grpcio", "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
}  # fmt: skip
"""Names on the index where they differ from the imported one."""

STANDARD = {*sys.stdlib_module_names, "tomllib"}
"""Python 3.10 lacks tomllib and is given tomli."""

# What a host of the extra runs, as files and folders; with what these import when they are imported.
RUNS = {
    "client": ["src/client", "src/moonjelly/sdk", "src/moonjelly/rpc", "src/moonjelly/scenes", "network_shaping"],
    "server": [
        *("src/server", "src/moonjelly/rpc", "src/moonjelly/inference", "src/moonjelly/models"),
        *("src/moonjelly/detection", "src/moonjelly/repository", "src/moonjelly/training"),
        *("src/moonjelly/planning/registry.py", "src/moonjelly/planning/solvers/highs.py"),
    ],
    "manager": ["src/cli", "src/experiment_manager", "src/simulation", "network_shaping", "plots"],
    "cplex": ["src/moonjelly/planning/solvers/cplex.py"],
}
LIBRARY_ALONE = [
    f"src/moonjelly/{name}"
    for name in (
        "types.py", "units.py", "clock.py", "errors.py", "version.py", "config.py", "profiles.py", "telemetry.py",
        "summary.py", "adaptation.py", "dispatching", "network", "planning/__init__.py", "repository",
    )
]  # fmt: skip
INDIRECT = {
    "pyarrow": "pandas writes Parquet with it",
    "cplex": "docplex solves with it",
    "grpcio-tools": "protos/generate_proto.sh",
}
"""Wanted though no module imports them."""


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0].lower().replace("_", "-")


def declared(extra: str) -> set[str]:
    """What ``pip install moonjelly[extra]`` brings; without extra where it is empty."""
    lines = PROJECT["optional-dependencies"][extra] if extra else []
    names = {name_of(line) for line in PROJECT["dependencies"]}
    for line in lines:
        inner = re.fullmatch(r"moonjelly\[(\w+)\]", line)
        names |= declared(inner[1]) if inner else {name_of(line)}
    return names


def wanted() -> set[str]:
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    return {name_of(line) for line in lines if line.strip() and not line.startswith("#")}


def statements(tree: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statements(node, inside_functions)


@cache
def imported(path: Path, inside_functions: bool) -> frozenset[str]:
    """Dotted names; of ``from a import b`` both ``a`` and ``a.b``, which may be a module."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), inside_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def third_party(names: frozenset[str]) -> set[str]:
    tops = {name.split(".")[0] for name in names} - STANDARD - set(OURS)
    return {PACKAGES.get(top, top).lower().replace("_", "-") for top in tops}


def files_of(name: str) -> set[Path]:
    """The files that run when our module ``name`` is imported: its own and its packages'."""
    parts = name.split(".")
    if parts[0] not in OURS:
        return set()
    found = set()
    for length in range(1, len(parts) + 1):
        place = OURS[parts[0]].joinpath(*parts[:length])
        found |= {path for path in (place / "__init__.py", place.with_suffix(".py")) if path.exists()}
    return found


def sources(places: list[str]) -> set[Path]:
    paths = [ROOT / place for place in places]
    assert all(path.exists() for path in paths), places
    return {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}


def needed(places: list[str]) -> dict[str, Path]:
    """Package to a file that needs it: all imports of ``places``, and those at the top of whatever they import."""
    own = sources(places)
    needs = {name: path for path in own for name in third_party(imported(path, True))}
    seen, todo = set(own), list(own)
    while todo:
        for name in imported(todo.pop(), False):
            for path in files_of(name) - seen:
                seen.add(path)
                todo.append(path)
                needs |= dict.fromkeys(third_party(imported(path, False)), path)
    return needs


@pytest.mark.parametrize("extra", ["", *RUNS])
def test_an_extra_brings_what_its_hosts_import(extra: str) -> None:
    needs = needed(RUNS[extra] if extra else LIBRARY_ALONE)
    missing = {name: str(path.relative_to(ROOT)) for name, path in needs.items() if name not in declared(extra)}
    assert missing == {}


def test_every_extra_is_looked_at() -> None:
    assert set(RUNS) == set(PROJECT["optional-dependencies"])


def test_requirements_in_names_what_is_imported_and_nothing_else() -> None:
    everything = {
        package
        for top, place in OURS.items()
        for path in (place / top).rglob("*.py")
        for package in third_party(imported(path, True))
    }
    assert everything - wanted() == set()
    assert wanted() - everything == set(INDIRECT)


def test_extras_name_nothing_that_requirements_in_lacks() -> None:
    assert set().union(*(declared(extra) for extra in RUNS)) <= wanted()


def test_a_client_needs_no_torch() -> None:
    assert "torch" not in declared("client") | declared("manager")
