"""Where a clone keeps its zoos, and where data that is not shipped may lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from moonjelly.errors import ZooError

DATA_PREFIX = "data:"
"""Begins a path that is looked up in the data folders rather than beside the file that names it."""


def clone_root() -> Path:
    """The clone that this library runs from; for an installed wheel a folder without zoos."""
    return Path(__file__).resolve().parents[3]


def data_folders() -> tuple[Path, ...]:
    """Where downloaded data is looked for, in this order.

    ``$MOONJELLY_DATA``, ``data`` in the clone (where ``download_data.sh`` puts it), ``../shared/data`` beside it.
    """
    root = clone_root()
    named = os.environ.get("MOONJELLY_DATA")
    places = [Path(named)] if named else []
    return (*places, root / "data", root.parent / "shared" / "data")


def data_file(path: str) -> Path:
    """The first data folder's file of this relative path.

    Raises:
        ZooError: no data folder has it.
    """
    folders = data_folders()
    for folder in folders:
        if (folder / path).is_file():
            return folder / path
    tried = ", ".join(str(folder) for folder in folders)
    raise ZooError(
        f"data file '{path}' is in none of {tried}; get it with ./download_data.sh (YOLOv4's weights: with --yolov4) "
        "or set MOONJELLY_DATA"
    )


def resolve(path: str, beside: Path) -> Path:
    """A path as zoo and model files write it: ``data:...``, absolute, or relative to ``beside``.

    Raises:
        ZooError: a ``data:`` file is in no data folder.
    """
    if path.startswith(DATA_PREFIX):
        return data_file(path[len(DATA_PREFIX) :])
    return beside / path


def zoo_folders() -> tuple[Path, ...]:
    """Folders that hold zoos by name."""
    return (clone_root() / "profiles",)


def zoo_names(folders: Sequence[Path] | None = None) -> tuple[str, ...]:
    """Names of the zoos that are there."""
    found = {file.parent.name for folder in folders or zoo_folders() for file in folder.glob("*/zoo.toml")}
    return tuple(sorted(found))
