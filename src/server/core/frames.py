"""Frames that the server has received and not yet settled, and when each must be answered.

Invariants
* A frame is in the book from its submission until its executor has answered it or died, because its slot is.
* It is answered to the client exactly once: by its executor, or by the watch when its deadline has passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from moonjelly.network import ClockOffset, answer_by_ns, captured_at_server
from moonjelly.rpc import messages
from moonjelly.units import NS_PER_MS, ServerInstant, ms_to_ns, transfer_ms

WATCH_GRACE_NS = 2 * NS_PER_MS
"""The watch answers this long after a deadline, so that an answer on its way is sent instead of thrown away."""


class PendingFrame(msgspec.Struct, eq=False):
    """One frame on its way through the server.

    Attributes:
        deadline_ns: latest instant at which the answer may leave.
        run_by_ns: latest instant at which its batch may end.
        answered: the client has its result; only the slot is still taken.
    """

    key: int
    session_id: int
    frame_id: int
    group: str
    device: int
    slot: int
    size_bytes: int
    width: int
    height: int
    received_ns: int
    deadline_ns: int
    uplink_ms: float
    run_by_ns: int = 0
    answered: bool = False


class FrameBook:
    """Pending frames by key, and a watch over their deadlines."""

    def __init__(self) -> None:
        self._frames: dict[int, PendingFrame] = {}
        self._watch: list[tuple[int, int]] = []
        self._last_key = 0

    def __len__(self) -> int:
        return len(self._frames)

    def next_key(self) -> int:
        """A fresh key."""
        self._last_key += 1
        return self._last_key

    def add(self, frame: PendingFrame) -> None:
        """Watch a frame."""
        self._frames[frame.key] = frame
        heapq.heappush(self._watch, (frame.deadline_ns + WATCH_GRACE_NS, frame.key))

    def get(self, key: int) -> PendingFrame | None:
        """By key."""
        return self._frames.get(key)

    def settle(self, key: int) -> PendingFrame | None:
        """Remove a frame whose slot is free."""
        return self._frames.pop(key, None)

    def watch_ns(self) -> int | None:
        """When the watch next looks."""
        watch = self._watch
        while watch:
            frame = self._frames.get(watch[0][1])
            if frame is not None and not frame.answered:
                return watch[0][0]
            heapq.heappop(watch)
        return None

    def overdue(self, now_ns: int) -> Iterator[PendingFrame]:
        """Frames that must be answered now."""
        while self._watch and self._watch[0][0] <= now_ns:
            frame = self._frames.get(heapq.heappop(self._watch)[1])
            if frame is not None and not frame.answered:
                yield frame


def deadline_of(
    frame: messages.Frame, received_ns: int, slo_ms: float, bandwidth_bps: float, rtt_ms: float
) -> tuple[int, float]:
    """When the answer to a frame must leave the server, and how long its uplink took (ms).

    Capture instant on the server's clock, plus the deadline, less the expected downlink. While the client has no
    clock offset yet, the uplink time is estimated from the frame's size and the client's bandwidth.
    """
    offset = (
        None
        if frame.server_minus_client_ns is None
        else ClockOffset(frame.server_minus_client_ns, frame.offset_bound_ns)
    )
    captured_ns = captured_at_server(frame.captured_ns, frame.sent_ns, ServerInstant(received_ns), offset)
    if offset is None:
        uplink_ms = rtt_ms / 2.0 + (transfer_ms(len(frame.data), bandwidth_bps) if bandwidth_bps > 0.0 else 0.0)
        captured_ns = ServerInstant(captured_ns - ms_to_ns(min(uplink_ms, slo_ms)))
    return answer_by_ns(captured_ns, slo_ms, rtt_ms), (received_ns - captured_ns) / NS_PER_MS
