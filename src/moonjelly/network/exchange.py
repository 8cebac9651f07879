"""What one message and its answer tell about a link: four instants and a size."""

from __future__ import annotations

from dataclasses import dataclass

from moonjelly.units import ClientInstant, ServerInstant

PROBE_BYTES = 512
"""Up to this size a message's own serialisation is neglected: pings are probes, frames are not."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message from the client and the server's immediate answer to it: a frame and its ack, a ping and its pong.

    Attributes:
        size_bytes: of the message; 0 for a ping.
        sent: when the client handed it to its stream.
        received: when the server had read all of it off the wire.
        replied: when the server handed the answer to its stream.
        returned: when the client had read the answer.
    """

    size_bytes: int
    sent: ClientInstant
    received: ServerInstant
    replied: ServerInstant
    returned: ClientInstant

    @property
    def is_probe(self) -> bool:
        """Small enough to measure delay without transfer time."""
        return self.size_bytes <= PROBE_BYTES

    @property
    def up_ns(self) -> int:
        """Uplink delay plus the clock offset (server minus client)."""
        return self.received - self.sent

    @property
    def down_ns(self) -> int:
        """Downlink delay minus the clock offset."""
        return self.returned - self.replied

    @property
    def round_trip_ns(self) -> int:
        """Time on the network both ways: the server's hold time is taken out, the offset cancels."""
        return self.up_ns + self.down_ns
