from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from moonjelly.errors import ProtocolError
from moonjelly.network import LinkEstimate, LinkState, estimate
from moonjelly.rpc import messages
from moonjelly.sdk import outcomes
from moonjelly.sdk.frames import FrameInFlight
from moonjelly.sdk.results import EncodedFrame, Withheld
from moonjelly.sdk.terms import DEFAULT_MAX_OUTSTANDING, Terms, plan_view
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ServerInstant, ms_to_ns

PLAN = messages.PlanUpdate(version=1, placed=True, variant=1, infer_ms=5.0)
ZOO = messages.ZooInfo(
    "zoo", "default", (messages.ZooVariant("s", 96, 0.25), messages.ZooVariant("l", 128, 0.5)), ("car",)
)
WELCOME = messages.Welcome(7, b"token", 30.0, False, 0, ZOO, PLAN, 100_000, 4, "1")
ENCODED = EncodedFrame(b"x" * 4000, 96, 96, 0, 90, 1.0)
BOX = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
SLO_MS = 100.0


def at(milliseconds: float) -> ClientInstant:
    return ClientInstant(10**9 + ms_to_ns(milliseconds))


UNKNOWN_LINK: LinkEstimate = estimate(LinkState(), at(0))
FRAME = FrameInFlight(1, at(0), at(4), at(SLO_MS), ENCODED, UNKNOWN_LINK, sent=at(6))
ANSWER = messages.Result(
    1, Outcome.ON_TIME, "", BOX, 0, 1, 1, messages.StageTimes(infer_ms=3.0), ServerInstant(5)
)  # fmt: skip


def terms(welcome: messages.Welcome = WELCOME) -> Terms:
    made = Terms()
    made.accept(welcome)
    return made


def test_the_exact_deadline_is_on_time_and_a_nanosecond_more_is_late() -> None:
    on_time = outcomes.answered(FRAME, ANSWER, at(SLO_MS), terms())
    late = outcomes.answered(FRAME, ANSWER, ClientInstant(at(SLO_MS) + 1), terms())
    assert (on_time.outcome, on_time.reason, on_time.accuracy) == (Outcome.ON_TIME, "", 0.25)
    assert (late.outcome, late.reason, late.accuracy) == (Outcome.LATE, "answered 0.0 ms late", 0.0)
    assert len(late.detections) == 1


def test_the_servers_view_of_lateness_does_not_count() -> None:
    result = outcomes.answered(
        FRAME, structs.replace(ANSWER, outcome=Outcome.LATE, reason="so it thinks"), at(50), terms()
    )
    assert (result.outcome, result.reason) == (Outcome.ON_TIME, "")


def test_shares_of_the_latency() -> None:
    result = outcomes.answered(FRAME, ANSWER, at(16), terms())
    assert result.latency_ms == pytest.approx(16)
    assert result.network_ms == pytest.approx(16 - 6 - 3)
    assert (result.desired_variant, result.used_variant, result.next_variant) == ("s", "s", "l")


def test_a_refusal_keeps_its_reason_and_has_no_boxes() -> None:
    result = outcomes.answered(
        FRAME, structs.replace(ANSWER, outcome=Outcome.DROPPED, reason="too late"), at(50), terms()
    )
    assert (result.outcome, result.reason, len(result.detections)) == (Outcome.DROPPED, "too late", 0)
    assert (result.used_variant, result.accuracy, result.received_ns) == ("", 0.0, at(50))


def test_what_was_never_sent_or_answered_says_so() -> None:
    unsent = replace(FRAME, sent=None)
    skipped = outcomes.unanswered(unsent, Outcome.SKIPPED, "why", terms())
    assert (skipped.sent_ns, skipped.received_ns, skipped.wire_bytes, skipped.stages) == (None, None, 4000, None)
    assert (skipped.bandwidth_bps, skipped.rtt_ms) == (None, None), "nothing was known of the link"
    withheld = outcomes.withheld(5, at(0), Withheld(Outcome.REJECTED, "full"), UNKNOWN_LINK, Terms())
    assert (withheld.frame_id, withheld.outcome, withheld.wire_bytes, withheld.next_variant) == (
        5, Outcome.REJECTED, None, "",
    )  # fmt: skip


def test_the_plan_follows_answers_but_never_goes_back() -> None:
    made = terms()
    made.follow(structs.replace(ANSWER, next_variant=0, plan_version=3))
    assert made.plan == structs.replace(PLAN, variant=0, version=3)
    made.follow(structs.replace(ANSWER, next_variant=1, plan_version=2))
    assert made.plan == structs.replace(PLAN, variant=0, version=3)


def test_a_rejected_clients_plan_does_not_follow_answers_and_is_that_of_a_probe() -> None:
    rejected = structs.replace(PLAN, placed=False, variant=1)
    made = terms(structs.replace(WELCOME, plan=rejected))
    made.follow(structs.replace(ANSWER, next_variant=0, plan_version=3))
    assert made.plan == rejected
    assert plan_view(rejected).variant == 0
    assert plan_view(PLAN).variant == 1


def test_a_client_sizes_by_the_servers_latency_factor_and_by_2_where_an_older_one_says_none() -> None:
    assert plan_view(structs.replace(PLAN, latency_factor=1.5)).latency_factor == 1.5
    assert plan_view(PLAN).latency_factor == 2.0


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (messages.ServerMessage(plan=structs.replace(PLAN, variant=2)), "variant 2; its zoo has 2"),
        (messages.ServerMessage(results=(structs.replace(ANSWER, variant=9),)), "variant 9"),
        (messages.ServerMessage(results=(ANSWER, structs.replace(ANSWER, next_variant=9))), "variant 9"),
        (
            messages.ServerMessage(
                results=(structs.replace(ANSWER, detections=Detections(BOX.boxes, BOX.scores, np.ones(1, np.int32))),)
            ),
            "class 1; its zoo has 1",
        ),
    ],
)
def test_a_server_that_contradicts_its_zoo(message: messages.ServerMessage, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        terms().check(message)


def test_what_the_server_would_refuse_in_any_case() -> None:
    assert terms().objection(ENCODED) is None
    assert terms().objection(replace(ENCODED, variant=2)) == Withheld(
        Outcome.FAILED, "sized for variant 2; the zoo has 2"
    )
    assert terms(structs.replace(WELCOME, max_frame_bytes=1000)).objection(ENCODED) == Withheld(
        Outcome.FAILED, "4000 bytes; the server takes at most 1000: lower the quality or the size"
    )
    assert terms(structs.replace(WELCOME, max_frame_bytes=0)).objection(ENCODED) is None, "it has not said"


@pytest.mark.parametrize(("asked", "taken"), [(4, 4), (0, DEFAULT_MAX_OUTSTANDING), (1000, DEFAULT_MAX_OUTSTANDING)])
def test_how_many_frames_may_wait(asked: int, taken: int) -> None:
    assert terms(structs.replace(WELCOME, max_outstanding=asked)).max_outstanding == taken
