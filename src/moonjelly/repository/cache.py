"""An artifact cache on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/moonjelly``, else ``~/.cache/moonjelly``."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "moonjelly"


class FileCache:
    """Implements :class:`moonjelly.inference.protocol.ArtifactCache` with one file per key.

    Keys name everything an artifact depends on, so entries are never stale; processes may share a folder. An entry
    carries a checksum: one that a full disk or a crash has cut short is made anew.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory if directory is not None else cache_folder()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Bytes under ``key``; made and kept when they are not there or broken.

        A folder that cannot be written costs the caching, not the artifact.
        """
        file = self._directory / hashlib.sha256(key.encode()).hexdigest()
        kept = _read(file)
        if kept is not None:
            return kept
        content = make()
        _write(file, content)
        return content


def _read(file: Path) -> bytes | None:
    try:
        stored = file.read_bytes()
    except OSError:
        return None
    checksum, content = stored[:32], stored[32:]
    return content if hashlib.sha256(content).digest() == checksum else None


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=".incoming-", dir=file.parent)
    except OSError:
        return
    try:
        with os.fdopen(handle, "wb") as sink:
            sink.write(hashlib.sha256(content).digest())
            sink.write(content)
        Path(beside).replace(file)
    except OSError:
        Path(beside).unlink(missing_ok=True)
