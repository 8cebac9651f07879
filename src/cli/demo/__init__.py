"""``moonjelly demo``: the main job on this machine, over a shaped network, with a live table and a report."""

from cli.demo.command import app

__all__ = ["app"]
