"""Detectors as torch modules, built from Darknet definitions (``docs/models.md``).

:mod:`~moonjelly.models.definition`, :mod:`~moonjelly.models.cfg` and :mod:`~moonjelly.models.weights` need no torch;
:mod:`~moonjelly.models.darknet` and :mod:`~moonjelly.models.checkpoint` do.
"""
