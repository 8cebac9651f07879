"""``moonjelly testbed``: Jellyfish's three machines as network namespaces on one Linux host.

Each machine is a namespace with an address of its own; server and clients run a real sshd with their own host keys.
Nothing of it exists in the host's own network. Every name follows from the testbed's name, so that ``down`` finds and
removes everything even after the process that made it was killed.
"""

from cli.testbed.command import app

__all__ = ["app"]
