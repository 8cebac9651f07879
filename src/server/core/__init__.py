"""The deciding core of the server: events in, instructions out.

What may live here: decisions and the state they need. What may not: sockets, processes, threads, clocks, randomness,
logging. Instants and tokens come in with the events; everything that happens is an instruction that the driver
carries out, and whose result is another event.
"""

from server.core.core import Core

__all__ = ["Core"]
