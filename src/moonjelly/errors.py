"""Errors that name the thing, the value and the remedy.

Every error that a user can cause derives from :class:`MoonjellyError`; roles and the command line print its
text in one line and exit with :attr:`MoonjellyError.exit_code`, or answer with it on the wire under
:attr:`MoonjellyError.wire_code`. Anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class MoonjellyError(Exception):
    """Base of all errors that a user can cause."""

    wire_code: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status code it is answered with."""

    exit_code: ClassVar[int] = 1


def cause(fault: Exception) -> str:
    """What ``fault`` says, in one line and without the file that Python appends: the text around it names that."""
    return " ".join(str(getattr(fault, "strerror", None) or fault).split())


class ConfigError(MoonjellyError):
    """An unknown key or an impossible value in a configuration."""

    wire_code = "INVALID_ARGUMENT"
    exit_code = 2


class ProfileError(MoonjellyError):
    """A profile that is missing, has holes or cannot be read."""

    wire_code = "FAILED_PRECONDITION"


class ModelError(MoonjellyError):
    """A model definition or weights that cannot be used."""

    wire_code = "FAILED_PRECONDITION"


class CocoError(MoonjellyError):
    """A COCO file that cannot be read, or classes that are not those of the truth."""

    wire_code = "INVALID_ARGUMENT"
    exit_code = 2


class ZooError(MoonjellyError):
    """A zoo that is missing something or contradicts itself."""

    wire_code = "FAILED_PRECONDITION"


class ProblemError(MoonjellyError):
    """A planning problem that is not well formed."""

    wire_code = "INVALID_ARGUMENT"


class SolverError(MoonjellyError):
    """A solver that is absent or refuses the problem's size."""

    wire_code = "FAILED_PRECONDITION"


class TraceError(MoonjellyError):
    """A network trace that cannot be read."""

    exit_code = 2


class SourceError(MoonjellyError):
    """A frame source that cannot be opened or read."""

    exit_code = 2


class FrameError(MoonjellyError):
    """A frame that cannot be decoded or exceeds the limits."""

    wire_code = "INVALID_ARGUMENT"


class SessionError(MoonjellyError):
    """An unknown, expired or misused session."""

    wire_code = "UNAUTHENTICATED"


class ProtocolError(MoonjellyError):
    """A message that the wire protocol does not allow at this point."""

    wire_code = "INVALID_ARGUMENT"


class ExecutorError(MoonjellyError):
    """An executor that failed or died."""

    wire_code = "UNAVAILABLE"


class ConnectionLostError(MoonjellyError):
    """The server could not be reached, or was lost and did not come back in time."""

    wire_code = "UNAVAILABLE"


class SchemaError(MoonjellyError):
    """A record of another version than this program reads, or none at all."""

    exit_code = 2


class ShapingError(MoonjellyError):
    """An interface that cannot be shaped: absent, not allowed, or in use."""
