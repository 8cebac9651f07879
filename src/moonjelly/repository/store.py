"""The model repository: versions of models in a directory, published atomically.

::

    <root>/<name>/<version>/     model.toml, definition, weights, profiles/<kind>/...; never changes once it is there
    <root>/<name>/serving        the number of the version to serve

A version is written beside, synced, and renamed into place: readers see all of it or nothing. Publishing compares
the parent that the new version was derived from with the version that serves, and fails when another publisher was
faster. Writers exclude one another by a file lock that the system releases with the process; readers take none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, PositiveInt

from moonjelly import config
from moonjelly.errors import ConfigError, ZooError
from moonjelly.inference.protocol import ModelSource
from moonjelly.repository.sources import check_name, make_source, read_bytes

SERVING = "serving"
"""Stands for the version that the serving pointer names."""

_INCOMING = ".incoming-"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What ``model.toml`` says of one version.

    Attributes:
        architecture: ``darknet`` or ``pth``.
        input_size: side of the square input in pixels that it was trained for.
        classes: class names by index.
        definition: file name of the network's description.
        weights: file name of the weights.
        preprocessing: ``rgb-stretch-unit``: RGB, stretched to the square, scaled to [0, 1]; the only one so far.
        parent: version that it was derived from, ``None`` for a first one.
        created: when, ISO 8601; empty where unknown.
        metrics: name to value, as the publisher measured them.
        checksums: file to SHA-256, hexadecimal; filled in by publishing.
    """

    architecture: str
    input_size: int
    classes: tuple[str, ...]
    definition: str = "model.cfg"
    weights: str = "model.weights"
    preprocessing: str = "rgb-stretch-unit"
    parent: int | None = None
    created: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)


class _CardFile(config.Options):
    format: Literal[1]
    architecture: Literal["darknet", "pth"]
    input_size: PositiveInt
    classes: tuple[str, ...] = Field(min_length=1)
    definition: str
    weights: str
    preprocessing: Literal["rgb-stretch-unit"]
    parent: PositiveInt | None = None
    created: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    checksums: dict[str, str] = Field(default_factory=dict)


class ModelRepository:
    """A repository below ``root``, which need not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> tuple[str, ...]:
        """Names of the models that have a version."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(entry.name for entry in self.root.iterdir() if entry.is_dir() and self.versions(entry.name))
        )

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a model, ascending; empty for an unknown one."""
        folder = self.root / check_name("model", name)
        if not folder.is_dir():
            return ()
        return tuple(sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and entry.is_dir()))

    def serving(self, name: str) -> int | None:
        """The version to serve, ``None`` before the first.

        Raises:
            ZooError: the pointer is broken.
        """
        file = self.root / check_name("model", name) / SERVING
        if not file.exists():
            return None
        text = read_bytes(f"serving pointer of model '{name}'", file).decode(errors="replace").strip()
        if not text.isdigit():
            raise ZooError(f"{file} holds {text!r}, not a version number; set it again with set_serving")
        return int(text)

    def set_serving(self, name: str, version: int) -> None:
        """Point at another version: rolls forward or back.

        Raises:
            ZooError: the version is not there.
        """
        self.path(name, version)
        with self._lock(name):
            self._point(name, version)

    def path(self, name: str, version: int | str = SERVING) -> Path:
        """Directory of a version.

        Args:
            name: of the model.
            version: number, or ``serving``.

        Raises:
            ZooError: it is not there.
        """
        number = self.serving(name) if version == SERVING else version
        if number is None or not str(number).isdigit() or int(number) not in self.versions(name):
            known = ", ".join(map(str, self.versions(name))) or "none"
            raise ZooError(f"repository {self.root}: model '{name}' has no version '{version}'; it has {known}")
        return self.root / name / str(int(number))

    def card(self, name: str, version: int | str = SERVING) -> ModelCard:
        """What ``model.toml`` of a version says.

        Raises:
            ZooError: the version is not there, or its file has unknown keys or impossible values.
        """
        file = self.path(name, version) / "model.toml"
        try:
            content = config.load(_CardFile, file=file)
        except ConfigError as fault:
            raise ZooError(f"{file}: {fault}") from None
        return ModelCard(**content.model_dump(exclude={"format"}))

    def load(self, name: str, version: int | str = SERVING) -> ModelSource:
        """Read a version, checked against its checksums.

        Raises:
            ZooError: it is not there, or a file is missing or not what its checksum says.
        """
        folder = self.path(name, version)
        card = self.card(name, int(folder.name))
        definition = _read_checked(folder, card.definition, card)
        weights = _read_checked(folder, card.weights, card)
        return make_source(name, card.architecture, definition.decode(), weights, card.classes)

    def verify(self, name: str, version: int | str = SERVING) -> None:
        """Read every file of a version against its checksum; errors as in :meth:`load`."""
        folder = self.path(name, version)
        card = self.card(name, int(folder.name))
        for file in card.checksums:
            _read_checked(folder, file, card)

    def publish(
        self,
        name: str,
        card: ModelCard,
        definition: str,
        weights: bytes,
        *,
        files: Mapping[str, bytes] | None = None,
        serve: bool = True,
    ) -> int:
        """Add a version; returns its number.

        Args:
            name: of the model; a new name makes a new model.
            card: ``card.parent`` must be the version that serves now, or ``None`` when there is none.
            definition: text of the network's description.
            weights: content of the weights file.
            files: more files (profiles) by path relative to the version.
            serve: point at it at once.

        Raises:
            ZooError: another version serves than ``card.parent`` (compare-and-set), a path leaves the version, or
                the disk refuses.
        """
        contents = {card.definition: definition.encode(), card.weights: weights, **(files or {})}
        for path in contents:
            _check_path(path)
        sealed = replace(card, checksums={path: hashlib.sha256(data).hexdigest() for path, data in contents.items()})
        contents["model.toml"] = _card_text(sealed).encode()
        with self._lock(name):
            serving = self.serving(name)
            if serving != card.parent:
                raise ZooError(
                    f"model '{name}': the new version was derived from {card.parent or 'nothing'}, but "
                    f"{serving or 'nothing'} serves now; derive it again from that and publish again"
                )
            version = max(self.versions(name), default=0) + 1
            try:
                self._write(self.root / name, str(version), contents)
            except OSError as fault:
                raise ZooError(f"model '{name}' cannot be published to {self.root}: {fault}") from fault
            if serve:
                self._point(name, version)
        return version

    def _write(self, folder: Path, version: str, contents: Mapping[str, bytes]) -> None:
        for left_over in folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(left_over)
        beside = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=folder))
        try:
            for path, data in contents.items():
                file = beside / path
                file.parent.mkdir(parents=True, exist_ok=True)
                _write_synced(file, data)
            for inner in (beside, *(path for path in beside.rglob("*") if path.is_dir())):
                _sync_folder(inner)
            beside.chmod(0o755)
            beside.rename(folder / version)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        _sync_folder(folder)

    def _point(self, name: str, version: int) -> None:
        folder = self.root / name
        beside = folder / f"{SERVING}.new"
        _write_synced(beside, f"{version}\n".encode())
        beside.replace(folder / SERVING)
        _sync_folder(folder)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        folder = self.root / check_name("model", name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as fault:
            raise ZooError(f"repository {self.root} cannot be written: {fault}") from fault
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _read_checked(folder: Path, file: str, card: ModelCard) -> bytes:
    _check_path(file)
    data = read_bytes(f"file '{file}' of version {folder.parent.name}/{folder.name}", folder / file)
    expected = card.checksums.get(file)
    found = hashlib.sha256(data).hexdigest()
    if expected is None or expected != found:
        raise ZooError(
            f"{folder / file} has SHA-256 {found}, model.toml says {expected or 'nothing'}: publish it again"
        )
    return data


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or path == "model.toml":
        raise ZooError(f"file name {path!r} is not allowed in a model version; use a relative path below it")


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _card_text(card: ModelCard) -> str:
    """TOML of a card; its strings are JSON's, which TOML's basic strings contain."""
    lines = ["format = 1"]
    for key in ("architecture", "input_size", "definition", "weights", "preprocessing", "parent", "created"):
        value = getattr(card, key)
        if value is not None:
            lines.append(f"{key} = {_toml(value)}")
    lines.append(f"classes = [{', '.join(_toml(name) for name in card.classes)}]")
    for table in ("metrics", "checksums"):
        lines.append(f"\n[{table}]")
        lines += [f"{_toml(key)} = {_toml(value)}" for key, value in getattr(card, table).items()]
    return "\n".join(lines) + "\n"


def _toml(value: str | float) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
