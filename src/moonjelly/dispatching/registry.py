"""Dispatchers by name; other packages add theirs under the entry point group ``moonjelly.dispatchers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from moonjelly.dispatching.baselines import ClipperAimd, DeepRt, JellyfishFifo, NexusEarlyDrop, SlackFit
from moonjelly.dispatching.decisions import Dispatcher
from moonjelly.dispatching.edf import EdfAdaptive
from moonjelly.errors import ConfigError

DEFAULT = "edf-adaptive"
ENTRY_POINT_GROUP = "moonjelly.dispatchers"

_SHIPPED: Mapping[str, Callable[..., Dispatcher]] = {
    DEFAULT: EdfAdaptive,
    "jellyfish-fifo": JellyfishFifo,
    "slackfit": SlackFit,
    "clipper-aimd": ClipperAimd,
    "deeprt": DeepRt,
    "nexus": NexusEarlyDrop,
}


def names() -> tuple[str, ...]:
    """Every name that :func:`create` knows, the default first."""
    return (*_SHIPPED, *(name for name in _installed() if name not in _SHIPPED))


def create(name: str = DEFAULT, **options: Any) -> Dispatcher:
    """A new dispatcher; one per device, as it may keep state.

    Args:
        name: one of :func:`names`.
        options: keyword arguments of that dispatcher.

    Raises:
        ConfigError: unknown name, or options that it does not take.
    """
    make: Callable[..., Dispatcher] | None = _SHIPPED.get(name) or _installed().get(name)
    if make is None:
        raise ConfigError(f"unknown dispatcher '{name}'; known: {', '.join(names())}")
    try:
        return make(**options)
    except TypeError as fault:
        raise ConfigError(f"dispatcher '{name}' does not take these options: {fault}") from None


@cache
def _installed() -> dict[str, Callable[..., Dispatcher]]:
    return {point.name: point.load() for point in entry_points(group=ENTRY_POINT_GROUP)}
