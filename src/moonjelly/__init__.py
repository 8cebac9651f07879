"""moonjelly: deadline-aware DNN inference serving for the mobile edge."""

from moonjelly.version import __version__

__all__ = ["__version__"]
