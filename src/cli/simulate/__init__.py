"""``moonjelly simulate``: planning against the optimum, its time, whole workloads, and recorded runs replayed."""

from cli.simulate.command import app

__all__ = ["app"]
