"""Time that a client keeps free because frames have come too late: one rule, live and simulated.

What is planned rests on estimates of link, server and encoder, each on the safe side by itself. On a host that is short
of processors they are all wrong at once, and no part sees by how much: only the deadlines that were missed say it. So
every missed one adds to the margin, and every kept one takes a little away, in the ratio at which the share of missed
deadlines settles at :data:`TOLERATED` (Gibbs and Candes, Adaptive conformal inference under distribution shift,
NeurIPS 2021, equation 2). Where the estimates hold there is nearly no margin.
"""

from __future__ import annotations

from moonjelly.types import Outcome

TOLERATED = 0.005
"""Share of frames that miss their deadlines at which the margin rests."""
STEP = 0.1
"""Of the deadline, that one missed deadline adds. By how much it was missed does not count: one stall is one step."""
MOST = 0.3
"""Of the deadline, that the margin takes at most."""


def observe(margin_ms: float, outcome: Outcome, slo_ms: float) -> float:
    """The margin after one more answer.

    Args:
        margin_ms: before.
        outcome: what the client made of the answer; one that says nothing of time changes nothing.
        slo_ms: the client's deadline.
    """
    if outcome is Outcome.ON_TIME:
        return max(0.0, margin_ms - TOLERATED * STEP * slo_ms)
    if outcome in (Outcome.LATE, Outcome.DROPPED):
        return min(margin_ms + (1.0 - TOLERATED) * STEP * slo_ms, MOST * slo_ms)
    return margin_ms
