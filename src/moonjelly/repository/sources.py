"""Reading a model's files into memory."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from moonjelly.errors import ZooError
from moonjelly.inference.protocol import ModelSource

ARCHITECTURES = ("darknet", "pth")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
"""Names of zoos, models and variants: they become file names."""


def check_name(what: str, name: str) -> str:
    """``name``, if it may be a file name.

    Raises:
        ZooError: it may not.
    """
    if not NAME.fullmatch(name):
        raise ZooError(f"{what} name {name!r} is not allowed; use letters, digits and . _ + - (up to 128)")
    return name


def source_digest(definition: str, weights: bytes) -> str:
    """SHA-256 over the definition and the weights, hexadecimal."""
    digest = hashlib.sha256(definition.encode())
    digest.update(b"\0")
    digest.update(weights)
    return digest.hexdigest()


def read_bytes(what: str, file: Path) -> bytes:
    """Content of ``file``.

    Raises:
        ZooError: it is missing or cannot be read; names ``what`` it is.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ZooError(f"{what} is missing: {file} does not exist") from None
    except OSError as fault:
        raise ZooError(f"{what} cannot be read: {fault}") from fault


def read_text(what: str, file: Path) -> str:
    """UTF-8 text of ``file``; errors as in :func:`read_bytes`."""
    try:
        return read_bytes(what, file).decode()
    except UnicodeDecodeError as fault:
        raise ZooError(f"{what} is not UTF-8 text: {file}: {fault}") from fault


def make_source(name: str, architecture: str, definition: str, weights: bytes, classes: tuple[str, ...]) -> ModelSource:
    """A :class:`ModelSource` with its digest."""
    return ModelSource(name, architecture, definition, weights, classes, source_digest(definition, weights))
