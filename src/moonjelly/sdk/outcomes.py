"""How a frame ended: what was sent and what came back, as the :class:`FrameResult` that the program gets."""

from __future__ import annotations

from dataclasses import replace

from moonjelly.network import LinkEstimate
from moonjelly.rpc.messages import Result
from moonjelly.sdk.frames import FrameInFlight
from moonjelly.sdk.results import FrameResult, Withheld
from moonjelly.sdk.terms import Terms
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ns_to_ms


def withheld(frame_id: int, captured: ClientInstant, why: Withheld, link: LinkEstimate, terms: Terms) -> FrameResult:
    """A captured frame that the client does not send."""
    return FrameResult(
        frame_id=frame_id,
        outcome=why.outcome,
        reason=why.reason,
        detections=Detections.empty(),
        captured_ns=captured,
        next_variant=terms.next_variant,
        bandwidth_bps=link.bandwidth_bps if link.known else None,
        rtt_ms=link.rtt_ms if link.known else None,
    )


def unanswered(frame: FrameInFlight, outcome: Outcome, reason: str, terms: Terms) -> FrameResult:
    """An encoded frame that has ended without an answer."""
    return replace(
        withheld(frame.frame_id, frame.captured, Withheld(outcome, reason), frame.link, terms),
        sent_ns=frame.sent,
        desired_variant=terms.variant_name(frame.encoded.variant),
        input_size=frame.encoded.width,
        quality=frame.encoded.quality,
        wire_bytes=len(frame.encoded.data),
        encode_ms=frame.encoded.encode_ms,
    )


def answered(frame: FrameInFlight, answer: Result, now: ClientInstant, terms: Terms) -> FrameResult:
    """A frame whose answer was read at ``now``: that says whether it is late, whatever the server thinks."""
    outcome, reason = answer.outcome, answer.reason
    if outcome in (Outcome.ON_TIME, Outcome.LATE):
        late_ns = now - frame.deadline
        outcome = Outcome.LATE if late_ns > 0 else Outcome.ON_TIME
        reason = f"answered {ns_to_ms(late_ns):.1f} ms late" if late_ns > 0 else ""
    result = replace(
        unanswered(frame, outcome, reason, terms),
        received_ns=now,
        network_ms=None if frame.sent is None else max(0.0, ns_to_ms(now - frame.sent) - answer.stages.server_ms),
        stages=answer.stages,
    )
    if outcome not in (Outcome.ON_TIME, Outcome.LATE):
        return result
    return replace(
        result,
        detections=answer.detections,
        used_variant=terms.variant_name(answer.variant),
        accuracy=terms.accuracy(answer.variant) if outcome is Outcome.ON_TIME else 0.0,
    )
