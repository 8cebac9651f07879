"""Solvers of :class:`moonjelly.planning.program.Program`, each imported only when it is used."""
