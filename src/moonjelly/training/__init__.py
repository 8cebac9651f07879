"""Training of the ``synthetic`` zoo: our own small detectors on our own traffic scenes.

Described in ``docs/scenes.md``; started by ``moonjelly zoo train``, which runs its tasks in processes.
"""
