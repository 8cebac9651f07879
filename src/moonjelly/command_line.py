"""How every program of the clone ends: a user's mistake is one line that names the thing, its value and the remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from typer import Abort, BadParameter, TyperException

from moonjelly.errors import MoonjellyError


def run(app: Callable[..., object], name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a typer app; returns its exit status.

    Args:
        app: of the program.
        name: how the user called it, at the head of every line.
        arguments: words after the name; those of this process where ``None``.
    """
    try:
        status = app(args=arguments, prog_name=name, standalone_mode=False)
    except MoonjellyError as fault:
        print(f"{name}: {fault}", file=sys.stderr)
        return fault.exit_code
    except TyperException as fault:
        _explain(name, fault)
        return fault.exit_code
    except OSError as fault:
        if fault.filename is None:  # no path of the user's
            raise
        print(f"{name}: {fault.filename}: {fault.strerror}; check or change the path", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (KeyboardInterrupt, Abort) as stop:
        if isinstance(stop.__cause__, EOFError):  # taken for Ctrl-D at a prompt, and nothing here prompts
            raise stop.__cause__ from None
        return 130
    return status if isinstance(status, int) else 0


def _explain(name: str, fault: TyperException) -> None:
    """A wrong option or value in one line; a group without a command has printed its help already."""
    context = getattr(fault, "ctx", None)
    path = context.command_path if context is not None else name
    if isinstance(fault, BadParameter) and (wrong := _value_of(fault)) is not None:
        fault.message = f"{wrong!r}; {fault.message[:1].lower()}{fault.message[1:]}"
    if fault.format_message():
        print(f"{path}: {fault.format_message().rstrip('.')}; see {path} --help", file=sys.stderr)


def _value_of(fault: BadParameter) -> object:
    """What was given, where the message does not say it: typer keeps it with the cause alone."""
    errors = getattr(fault.__cause__, "errors", None)
    return errors()[0]["input"] if callable(errors) else None
