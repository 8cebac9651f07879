"""Configuration: TOML file < environment < command line, validated once at the edge.

A role defines its options as a pydantic model with ``extra="forbid"``; :func:`load` merges the three sources
and turns every fault into a :class:`~moonjelly.errors.ConfigError` that names the key, the value and what is
allowed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from moonjelly.errors import ConfigError, cause

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


class Options(BaseModel):
    """Base of every role's options: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


O = TypeVar("O", bound=Options)  # noqa: E741


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise ConfigError(f"configuration file {path} cannot be read: {cause(fault)}") from fault


def load(
    options: type[O],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> O:
    """Merge and validate.

    Args:
        options: the role's model.
        file: TOML file, lowest precedence.
        environment: variables; ``PREFIX + KEY.upper()`` sets ``key``.
        prefix: of those variables; whatever begins with it must be a key.
        overrides: command-line values; ``None`` means "not given".

    Raises:
        ConfigError: names the first faulty key, its value and what is allowed.
    """
    merged: dict[str, Any] = read_toml(file) if file is not None else {}
    merged.update(_of_environment(options, environment or {}, prefix))
    merged.update({key: value for key, value in (overrides or {}).items() if value is not None})
    try:
        return options.model_validate(merged)
    except ValidationError as fault:
        raise ConfigError(_explain(options, fault)) from None


def _of_environment(options: type[Options], environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    keys = {prefix + key.upper(): key for key in options.model_fields}
    found = {name: value for name, value in environment.items() if name.startswith(prefix)}
    for name in found:
        if name not in keys:
            known = ", ".join(sorted(key.upper() for key in options.model_fields))
            raise ConfigError(f"unknown environment variable {name}; after {prefix} comes one of {known}")
    return {keys[name]: value for name, value in found.items()}


def _explain(options: type[Options], fault: ValidationError) -> str:
    first = fault.errors()[0]
    # A member of a union stands in the place by the name of its class, which no user knows.
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("_"))
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; known keys: {', '.join(_keys_beside(options, first['loc']))}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"'{key}' = {first['input']!r}: {message}" if key else message  # without a key: keys that do not go together


def _keys_beside(options: type[Options], place: Sequence[int | str]) -> list[str]:
    """The keys that may stand where ``place`` names an unknown one: of ``options`` or of what is nested in it."""
    models = [options]
    for part in place[:-1]:
        if chosen := [model for model in models if model.__name__ == part]:  # of a union
            models = chosen
        elif fields := [model.model_fields[str(part)] for model in models if part in model.model_fields]:
            models = [model for field in fields for model in _models_in(field.annotation)]
    return sorted({key for model in models for key in model.model_fields})


def _models_in(annotation: Any) -> list[type[Options]]:
    if parts := get_args(annotation):
        return [model for part in parts for model in _models_in(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Options) else []
