"""The ``moonjelly`` command: the outermost package, the only one that may start any role."""
