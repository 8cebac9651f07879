"""The wheel installs the library alone, so that no generic name lands in anybody's environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that the clone stays clean."""
    place = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(root / name, place / name)
    shutil.copytree(root / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = "import setuptools.build_meta as b; print(b.build_wheel('dist'))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=place, check=True, capture_output=True)
    return next((place / "dist").glob("moonjelly-*.whl"))


def test_top_level_names(wheel: Path) -> None:
    names = {entry.split("/")[0] for entry in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"moonjelly"}


def test_lives_beside_a_package_called_client(root: Path, wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "client.py").write_text("NAME = 'someone else'\n")
    probe = (
        f"import sys; sys.path = [p for p in sys.path if p not in {[str(root), str(root / 'src')]}]; "
        f"sys.path.insert(0, {str(site)!r}); "
        "import client, moonjelly, moonjelly.planning; print(client.NAME, moonjelly.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split()[:2] == ["someone", "else"]
    assert str(site) in done.stdout


def test_the_command_says_where_the_application_is(root: Path, wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    probe = (
        f"import sys; sys.path = [p for p in sys.path if p not in {[str(root), str(root / 'src')]}]; "
        f"sys.path.insert(0, {str(site)!r}); "
        "from moonjelly.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "runs from a clone" in done.stderr
