"""The clients of a simulated run: cameras, encoders, links, channels; the adapters decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moonjelly import network
from moonjelly.adaptation import Send, Skip, SkipReason
from moonjelly.backoff import Backoff
from moonjelly.network import Exchange
from moonjelly.on_hand import OnHand
from moonjelly.profiles import Profile
from moonjelly.telemetry import FrameRow
from moonjelly.types import Outcome
from moonjelly.units import NS_PER_MS, NS_PER_S, ClientInstant, ServerInstant, ms_to_ns, ns_to_ms
from simulation import events
from simulation.adapters import Adapter
from simulation.events import Agenda, Frame
from simulation.rows import sent_row, skipped_row
from simulation.uplink import Uplink
from simulation.workload import ClientSpec, Timing, side_ms

PING_BYTES = 64
ACKNOWLEDGE_NS = NS_PER_MS // 10
ROUND_TRIPS_TO_CONNECT = 2
LINGER_NS = NS_PER_S // 2
"""How long a client that captures no more stays for its answers."""


@dataclass(eq=False, slots=True)
class SimulatedClient:
    """One client.

    Attributes:
        on_hand: frames that wait for the link, by the row of each that waits in vain.
        rng: spreads its first attempts to connect again.
        channel: number of its connection; what belongs to an older one is lost.
        connected: whether it has one.
        lost_ns: when it gave the last one up.
        look_ns: when it looks next whether the link is gone; ``None``: nothing is due.
        outstanding: frames without an outcome, by frame id.
        pings: that it has sent.
        channel_pings: those of them that its present connection has carried.
        up_ns: when the last message reached the server; a stream keeps its order.
        down_ns: when the last message reached the client.
    """

    spec: ClientSpec
    adapter: Adapter
    uplink: Uplink
    on_hand: OnHand[FrameRow]
    rng: np.random.Generator
    channel: int = 0
    connected: bool = True
    lost_ns: int = 0
    look_ns: int | None = None
    outstanding: dict[int, Frame] = field(default_factory=dict)
    pings: int = 0
    channel_pings: int = 0
    up_ns: int = 0
    down_ns: int = 0

    def clock(self, now_ns: int) -> ClientInstant:
        """The client's clock at the simulation's ``now_ns``."""
        return ClientInstant(now_ns + self.spec.clock_offset_ns)

    @property
    def ping_delays_ns(self) -> tuple[int, int]:
        """Of the next ping and of its answer."""
        up_ns, down_ns = self.spec.ping_delay_ns[self.pings % len(self.spec.ping_delay_ns)].tolist()
        return up_ns, down_ns

    def transmit(self, now_ns: int, size_bytes: int, delay_ns: int) -> int | None:
        """Put a message on the uplink; returns when it is at the server, ``None`` if never."""
        end_ns = self.uplink.transmit(now_ns, size_bytes)
        if end_ns is None:
            return None
        self.up_ns = max(self.up_ns, end_ns + delay_ns)
        return self.up_ns

    def reconnect(self, now_ns: int) -> None:
        """Begin with empty buffers: what waits for a retransmission belongs to the old connection."""
        self.uplink.reset(now_ns)
        self.up_ns = self.down_ns = now_ns

    def deliver(self, now_ns: int, delay_ns: int) -> int | None:
        """Send a small message down; returns when it is at the client, ``None`` if never."""
        usable_ns = self.uplink.usable_ns(now_ns) if self.spec.outages_stop_answers else now_ns
        if usable_ns is None:
            return None
        self.down_ns = max(self.down_ns, usable_ns + delay_ns)
        return self.down_ns


class Fleet:
    """All clients of a run.

    Args:
        clients: by id.
        profile: names and sizes of the variants.
        timing: delays.
        counted_ns: frames captured before are not logged.
        agenda: where clients put what they do next.
        record: told of every frame's outcome.
    """

    def __init__(
        self,
        clients: dict[int, SimulatedClient],
        profile: Profile,
        timing: Timing,
        counted_ns: int,
        agenda: Agenda,
        record: Callable[[FrameRow], None],
    ) -> None:
        self._clients = clients
        self._profile = profile
        self._sizes = tuple(variant.input_size for variant in profile.variants)
        self._timing = timing
        self._counted_ns = counted_ns
        self._agenda = agenda
        self._record = record
        self._keys = 0

    def __getitem__(self, client_id: int) -> SimulatedClient:
        return self._clients[client_id]

    def join(self, client_id: int, now_ns: int) -> None:
        """Begin to ping and to capture."""
        spec = self._clients[client_id].spec
        self.ping(client_id, self._clients[client_id].channel, now_ns)
        if spec.frames:
            self._agenda.add(spec.captured_ns(0), events.Captured(client_id, 0))
        self._agenda.add(spec.leaves_ns + LINGER_NS, events.Left(client_id))

    def capture(self, client_id: int, frame_id: int, now_ns: int) -> None:
        """Decide on one frame."""
        client = self._clients[client_id]
        spec = client.spec
        if frame_id + 1 < spec.frames:
            self._agenda.add(spec.captured_ns(frame_id + 1), events.Captured(client_id, frame_id + 1))
        captured = client.clock(now_ns)
        self._skip(client, client.on_hand.given_up(captured))
        decision: Send | Skip = Skip(SkipReason.OUTAGE)
        if client.connected:
            decision = client.adapter.choose(captured, captured)
        if isinstance(decision, Send):
            self._encode(client, frame_id, captured, decision, now_ns)
            return
        row = skipped_row(spec, frame_id, captured, decision.reason)
        kept = client.adapter.keeps(decision.reason)
        self._skip(client, client.on_hand.add(captured, row) if kept else [row])

    def _choose_waiting(self, client: SimulatedClient, now_ns: int) -> None:
        """Something has changed on the link: one of the frames on hand may have its turn."""
        now = client.clock(now_ns)
        self._skip(client, client.on_hand.given_up(now))
        if not client.connected:
            return

        def choose(captured: ClientInstant) -> Send | None:
            decision = client.adapter.choose(captured, now, probing=False)
            return decision if isinstance(decision, Send) else None

        found = client.on_hand.next_to_send(choose, now)
        if found is not None:
            captured, row, decision = found
            self._encode(client, row.frame_id, captured, decision, now_ns)

    def _encode(
        self, client: SimulatedClient, frame_id: int, captured: ClientInstant, decision: Send, now_ns: int
    ) -> None:
        spec = client.spec
        self._skip(client, client.on_hand.passed_over(captured))
        input_size = self._sizes[decision.variant]
        table_bytes = network.prior_bytes(input_size, decision.jpeg_quality)
        self._keys += 1
        frame = Frame(
            key=self._keys,
            client_id=spec.client_id,
            frame_id=frame_id,
            channel=client.channel,
            captured=captured,
            variant=decision.variant,
            quality=decision.jpeg_quality,
            size_bytes=max(1, round(table_bytes * float(spec.size_factor[frame_id]))),
            encode_ms=self._encode_ms(input_size),
            sent=captured,
            bandwidth_bps=0.0,
            rtt_ms=0.0,
            offset=None,
            received=ServerInstant(0),
        )
        client.outstanding[frame_id] = frame
        self._agenda.add(now_ns + ms_to_ns(frame.encode_ms), events.Encoded(frame))

    def send(self, frame: Frame, now_ns: int) -> None:
        """Put an encoded frame on the uplink."""
        client = self._clients[frame.client_id]
        client.on_hand.handed_over(frame.captured)
        if frame.channel != client.channel:
            return
        frame.sent = client.clock(now_ns)
        frame.bandwidth_bps, frame.rtt_ms, frame.offset = client.adapter.report(frame.sent)
        side = self._sizes[frame.variant]
        client.adapter.sent(frame.captured, side, frame.quality, frame.size_bytes, frame.sent, frame.encode_ms)
        self._arm(client)
        at_ns = client.transmit(now_ns, frame.size_bytes, int(client.spec.up_delay_ns[frame.frame_id]))
        if at_ns is not None:
            self._agenda.add(at_ns, events.Received(frame))
        self._choose_waiting(client, now_ns)

    def reaches_server(self, frame: Frame) -> bool:
        """Whether the connection that carried the frame still stands."""
        return frame.channel == self._clients[frame.client_id].channel

    def acknowledged(self, frame: Frame, now_ns: int) -> None:
        """A frame's acknowledgement has come."""
        client = self._clients[frame.client_id]
        if frame.channel == client.channel:
            replied = ServerInstant(frame.received + ACKNOWLEDGE_NS)
            client.adapter.acknowledged(
                Exchange(frame.size_bytes, frame.sent, frame.received, replied, client.clock(now_ns))
            )
            self._choose_waiting(client, now_ns)

    def answered(self, frame: Frame, now_ns: int) -> None:
        """A frame's answer has come; the client judges it on its own clock."""
        client = self._clients[frame.client_id]
        if client.outstanding.get(frame.frame_id) is not frame:
            return
        del client.outstanding[frame.frame_id]
        now = client.clock(now_ns)
        outcome = frame.outcome or Outcome.FAILED
        if outcome in (Outcome.ON_TIME, Outcome.LATE):
            late = now - frame.captured > ms_to_ns(client.spec.slo_ms)
            outcome = Outcome.LATE if late else Outcome.ON_TIME
            frame.reason = "answered after its deadline" if late else ""
        client.adapter.answered(frame.next_variant, outcome)
        self._log(sent_row(client.spec, frame, self._profile, outcome, now), client.spec)

    def ping(self, client_id: int, channel: int, now_ns: int) -> None:
        """Measure the link, and keep an answer due, for as long as the connection stands."""
        client = self._clients[client_id]
        if channel != client.channel:
            return
        self._send_ping(client, now_ns)
        if now_ns < client.spec.leaves_ns:
            pause_ns = network.ping_pause_ns(client.channel_pings)
            self._agenda.add(now_ns + pause_ns, events.PingDue(client_id, channel))

    def ping_received(self, ping: events.PingReceived, now_ns: int) -> None:
        """The server answers a ping."""
        client = self._clients[ping.client_id]
        returned_ns = client.deliver(now_ns, ping.delay_ns)
        if returned_ns is not None:
            pong = events.PongReturned(ping.client_id, ping.channel, ping.sent, ServerInstant(now_ns))
            self._agenda.add(returned_ns, pong)

    def ponged(self, pong: events.PongReturned, now_ns: int) -> None:
        """A ping's answer has come."""
        client = self._clients[pong.client_id]
        if pong.channel == client.channel:
            client.adapter.ponged(Exchange(0, pong.sent, pong.received, pong.received, client.clock(now_ns)))
            self._choose_waiting(client, now_ns)

    def look(self, client_id: int, now_ns: int) -> None:
        """See whether the link has been silent for too long."""
        client = self._clients[client_id]
        if client.look_ns != now_ns:
            return
        client.look_ns = None
        if client.adapter.silent(client.clock(now_ns)):
            self._lose_channel(client, now_ns)
        else:
            self._arm(client)

    def try_to_open(self, client_id: int, now_ns: int) -> None:
        """Attempt to connect again."""
        client = self._clients[client_id]
        if client.uplink.is_up(now_ns):
            round_trip_ns = sum(client.ping_delays_ns)
            self._agenda.add(now_ns + ROUND_TRIPS_TO_CONNECT * round_trip_ns, events.ChannelOpened(client_id))
        elif now_ns < client.spec.leaves_ns:
            gone_ms = ns_to_ms(now_ns - client.lost_ns)
            retry_ns = ms_to_ns(client.adapter.retry_ms(gone_ms, client.clock(now_ns)))
            self._agenda.add(now_ns + retry_ns, events.ReconnectDue(client_id))

    def opened(self, client_id: int, now_ns: int) -> None:
        """Go on over a new channel."""
        client = self._clients[client_id]
        client.connected = True
        client.channel_pings = 0
        client.reconnect(now_ns)
        self.ping(client_id, client.channel, now_ns)
        self._choose_waiting(client, now_ns)

    def finish(self) -> None:
        """What has no answer by now never gets one."""
        for client in self._clients.values():
            self._skip(client, client.on_hand.all())
            self._lose_outstanding(client, "no answer before the end of the run")

    def _send_ping(self, client: SimulatedClient, now_ns: int) -> None:
        client.adapter.pinged(client.clock(now_ns))
        self._arm(client)
        up_ns, down_ns = client.ping_delays_ns
        client.pings += 1
        client.channel_pings += 1
        received_ns = client.transmit(now_ns, PING_BYTES, up_ns)
        if received_ns is not None:
            ping = events.PingReceived(client.spec.client_id, client.channel, client.clock(now_ns), down_ns)
            self._agenda.add(received_ns, ping)

    def _arm(self, client: SimulatedClient) -> None:
        """One event for what falls due; replaced only by an earlier one."""
        due = client.adapter.next_look
        if due is None:
            return
        due_ns = due - client.spec.clock_offset_ns
        if client.look_ns is None or due_ns < client.look_ns:
            client.look_ns = due_ns
            self._agenda.add(due_ns, events.LookDue(client.spec.client_id))

    def _lose_channel(self, client: SimulatedClient, now_ns: int) -> None:
        client.channel += 1
        client.connected = False
        client.lost_ns = now_ns
        client.adapter.reset()
        self._lose_outstanding(client, "the link was lost")
        pause_ns = round(Backoff().failed().delay_s(client.rng.random()) * NS_PER_S)
        self._agenda.add(now_ns + pause_ns, events.ReconnectDue(client.spec.client_id))

    def _lose_outstanding(self, client: SimulatedClient, reason: str) -> None:
        for frame in client.outstanding.values():
            frame.reason = reason
            self._log(sent_row(client.spec, frame, self._profile, Outcome.LOST, None), client.spec)
        client.outstanding.clear()

    def _skip(self, client: SimulatedClient, rows: list[FrameRow]) -> None:
        for row in rows:
            self._log(row, client.spec)

    def _encode_ms(self, input_size: int) -> float:
        return side_ms(self._timing.encode_ms, input_size, self._sizes[-1])

    def _log(self, row: FrameRow, spec: ClientSpec) -> None:
        if row.capture_ts - spec.clock_offset_ns >= self._counted_ns:
            self._record(row)
