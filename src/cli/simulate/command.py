"""Planning against the optimum, its time, whole workloads, and recorded runs replayed."""

from __future__ import annotations

import typer

from cli.simulate.compare import compare
from cli.simulate.replay import replay
from cli.simulate.timings import timings
from cli.simulate.trace import trace

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
for command in (compare, timings, trace, replay):
    app.command()(command)
