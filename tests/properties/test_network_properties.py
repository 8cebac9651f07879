"""What holds for any link, any trace and any sequence of answers."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from moonjelly import network
from moonjelly.adaptation import UTILISATION, PlanView, Send, Stream, Unacknowledged, decide, next_variant
from moonjelly.clock import ManualClock, SkewedClock
from moonjelly.network import (
    DEFAULT_QUALITY,
    DEFAULT_RESPONSE_BYTES,
    SETTLING_PINGS,
    ErrorBasedFilter,
    Exchange,
    FrameSizes,
    LinkEstimate,
    LinkState,
    budgets,
    planned_budgets,
)
from moonjelly.network.transfer import SMALLEST_SHARE
from moonjelly.planning.overhead import overhead_ms
from moonjelly.units import NS_PER_S, ClientInstant, ServerInstant, ms_to_ns, ns_to_ms
from network_shaping.pacing import Pacer
from network_shaping.traces import Trace

SIZES = tuple(range(128, 609, 32))
delays_ms = st.floats(0.05, 300.0)
rates = st.lists(st.one_of(st.just(0.0), st.floats(1e4, 2e8)), min_size=1, max_size=12).filter(any)


@given(
    offset_ns=st.integers(-5 * NS_PER_S, 5 * NS_PER_S),
    drift_ppm=st.floats(-50.0, 50.0),
    gaps=st.lists(st.tuples(delays_ms, delays_ms, st.floats(1.0, 5_000.0)), min_size=1, max_size=40),
)
def test_the_true_offset_is_within_the_bound(
    offset_ns: int, drift_ppm: float, gaps: list[tuple[float, float, float]]
) -> None:
    client = ManualClock()
    server = SkewedClock(client, offset_ns, drift_ppm)
    state = LinkState()
    for up_ms, down_ms, pause_ms in gaps:
        client.advance_ns(ms_to_ns(pause_ms))
        sent = ClientInstant(client.now_ns())
        client.advance_ns(ms_to_ns(up_ms))
        received = ServerInstant(server.now_ns())
        client.advance_ns(ms_to_ns(down_ms))
        now = ClientInstant(client.now_ns())
        state = network.observe(state, Exchange(0, sent, received, received, now))
        offset = network.estimate(state, now).offset
        assert offset is not None
        assert abs(offset.to_server(now) - server.now_ns()) <= offset.bound_ns + 1_000


instants = st.integers(-(10**13), 10**13)


@given(st.lists(st.tuples(st.integers(0, 10**7), instants, instants, instants, instants), max_size=30))
def test_no_answer_breaks_the_estimators(answers: list[tuple[int, int, int, int, int]]) -> None:
    """Also those that a broken or hostile server sends."""
    state, rival = LinkState(), ErrorBasedFilter()
    for size, sent, received, replied, returned in answers:
        exchange = Exchange(
            size, ClientInstant(sent), ServerInstant(received), ServerInstant(replied), ClientInstant(returned)
        )
        state = network.observe(state, exchange)
        rival = rival.step(exchange, 320)
        estimate = network.estimate(state, ClientInstant(returned))
        assert 0.0 <= estimate.bandwidth_bps < math.inf
        assert 0.0 < estimate.cautious_bps() <= estimate.bandwidth_bps or not estimate.known
        assert 0.0 <= estimate.rtt_ms < math.inf
        assert 0.0 < estimate.confidence <= 1.0
        assert math.isfinite(rival.bandwidth_bps)


@given(
    rate_bps=st.floats(2e6, 1e8),
    frames=st.lists(
        st.tuples(
            st.integers(1_000, 60_000),
            st.floats(0.0, 100.0),
            st.one_of(st.just(0.0), st.floats(0.0, 200.0)),
            st.sampled_from((False, False, False, True)),
        ),
        min_size=1,
        max_size=60,
    ),
)
def test_a_reader_that_stalls_claims_no_faster_link(
    rate_bps: float, frames: list[tuple[int, float, float, bool]]
) -> None:
    """A link that was met idle once, then any stalls of whoever reads: never more than twice its rate."""
    state = LinkState()
    link = Pacer(Trace("any", (0.0,), (rate_bps,), 1.0))
    now_s, readable_s = 1.0, 0.0
    for number in range(SETTLING_PINGS):
        state = network.observe(state, _exchange(0, 0.1 * number, 0.1 * number))
    for size_bytes, pause_ms, stall_ms, is_ping in frames:
        now_s += pause_ms / 1e3
        size_bytes *= not is_ping
        # All that has arrived by the end of a stall is read then, each some 50 us after the one before.
        readable_s = max(link.reserve(now_s, size_bytes) + stall_ms / 1e3, readable_s + 5e-5)
        state = network.observe(state, _exchange(size_bytes, now_s, readable_s))
        if state.bandwidth is not None:
            assert state.bandwidth.bandwidth_bps <= 2.0 * rate_bps


def _exchange(size_bytes: int, sent_s: float, received_s: float) -> Exchange:
    """Over 5 ms each way, with clocks that agree."""
    received_ns = round((received_s + 0.005) * NS_PER_S)
    returned = ClientInstant(received_ns + ms_to_ns(5.0))
    received = ServerInstant(received_ns)
    return Exchange(size_bytes, ClientInstant(round(sent_s * NS_PER_S)), received, received, returned)


@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 100), st.integers(1, 10**7)), max_size=40))
def test_learnt_sizes_stay_positive_and_finite(frames: list[tuple[int, int, int]]) -> None:
    sizes = FrameSizes()
    for input_size, quality, encoded in frames:
        sizes = network.observe_size(sizes, input_size, quality, encoded)
    assert all(0.0 < size < math.inf for size in sizes.of_variants(SIZES))


@given(
    st.floats(1.0, 1e3),
    st.floats(0.1, 120.0),
    st.lists(st.floats(1.0, 1e6), min_size=2, max_size=8).map(sorted),
    st.floats(0.0, 1e9),
    st.floats(0.0, 500.0),
    st.floats(0.0, 50.0),
)
def test_budgets_fall_with_size_and_grow_with_bandwidth(
    slo_ms: float, fps: float, sizes: list[float], bandwidth: float, rtt_ms: float, overhead_ms: float
) -> None:
    found = budgets(slo_ms, fps, sizes, bandwidth, rtt_ms, overhead_ms)
    assert list(found) == sorted(found, reverse=True)
    assert all(0.0 <= budget <= slo_ms for budget in found)
    better = budgets(slo_ms, fps, sizes, 2.0 * bandwidth, rtt_ms, overhead_ms)
    assert all(after >= before for before, after in zip(found, better, strict=True))


@given(
    st.lists(st.sampled_from((96, 128, 160, 224, 352)), min_size=1, max_size=8),
    st.lists(st.floats(0.0, 200.0), min_size=5, max_size=5),
)
def test_a_planned_budget_is_that_of_frames_that_the_client_may_send(sizes: list[int], left_ms: list[float]) -> None:
    """Larger frames leave less, or nothing; running a variant costs a client one size at most."""
    of_size = dict(zip((96, 128, 160, 224, 352), sorted(left_ms, reverse=True), strict=True))
    budget_ms = [of_size[size] for size in sizes]
    for variant, planned in enumerate(planned_budgets(budget_ms, sizes)):
        own = sizes[variant]
        assert planned >= of_size[own]
        smaller = sorted({size for size in sizes[:variant] if size < own})
        allowed = [own, *smaller[-1:], *(size for size in smaller if size >= SMALLEST_SHARE * own)]
        carried = [size for size in (*smaller, own) if of_size[size] > 0.0]
        least_carried = carried[-2] if len(carried) > 1 else 0
        assert any(of_size[size] == planned for size in allowed if size >= least_carried or not planned)


@given(
    bandwidth=st.floats(1e3, 1e9),
    deviation=st.floats(0.01, 0.9),
    rtt_ms=st.floats(0.0, 150.0),
    age_ms=st.floats(0.0, 5_000.0),
    proven=st.floats(0.0, 1e6),
    waiting=st.lists(st.tuples(st.integers(100, 200_000), st.floats(0.0, 900.0)), max_size=8),
    planned=st.integers(0, 20),
    slo_ms=st.floats(10.0, 2_000.0),
    fps=st.floats(0.5, 60.0),
    lag_ms=st.floats(0.0, 200.0),
)
def test_what_is_sent_is_allowed(
    bandwidth: float,
    deviation: float,
    rtt_ms: float,
    age_ms: float,
    proven: float,
    waiting: list[tuple[int, float]],
    planned: int,
    slo_ms: float,
    fps: float,
    lag_ms: float,
) -> None:
    now = ClientInstant(10 * NS_PER_S)
    in_flight = [
        Unacknowledged(size, ClientInstant(now - ms_to_ns(ago)))
        for size, ago in sorted(waiting, key=lambda item: -item[1])
    ]
    link = LinkEstimate(bandwidth, deviation, 0.0, proven, rtt_ms, 0.5, None, age_ms, age_ms)
    plan = PlanView(True, planned, 10.0, 4.0)
    captured = ClientInstant(now - ms_to_ns(lag_ms))
    decision = decide(Stream(slo_ms, fps, SIZES), plan, link, in_flight, FrameSizes(), captured, now)
    if isinstance(decision, Send):
        assert 0 <= decision.variant <= min(planned, len(SIZES) - 1)
        assert decision.jpeg_quality in (90, 75, 60, 45, 30)
        assert decision.jpeg_quality == 90 or decision.variant == 0
        arrives_in_time = lag_ms + decision.arrives_in_ms + rtt_ms / 2 + plan.infer_ms + plan.overhead_ms <= slo_ms
        is_probe = not in_flight and age_ms > 500.0
        assert arrives_in_time or is_probe


@given(
    rate_bps=st.floats(2e5, 2e8),
    slo_ms=st.floats(20.0, 1_000.0),
    fps=st.floats(0.5, 60.0),
    rtt_ms=st.floats(0.0, 100.0),
    lag_ms=st.floats(0.0, 20.0),
    encode_ms=st.floats(0.0, 80.0),
    measured_ms=st.floats(0.0, 20.0),
    infer_ms=st.floats(0.5, 60.0),
    factor=st.sampled_from((1.0, 1.5, 2.0)),
    planned=st.integers(0, len(SIZES) - 1),
)
def test_where_nothing_is_uncertain_a_client_sends_the_size_that_its_plan_counts_with(
    rate_bps: float,
    slo_ms: float,
    fps: float,
    rtt_ms: float,
    lag_ms: float,
    encode_ms: float,
    measured_ms: float,
    infer_ms: float,
    factor: float,
    planned: int,
) -> None:
    """Only the share of the link that frames may fill is the client's own; answers, which the plan counts too, are its
    reserve: with them it never counts with a larger frame."""
    exact = FrameSizes(spread=0.0)
    link = LinkEstimate(rate_bps, deviation=0.0, proven_bytes=1e6, rtt_ms=rtt_ms, age_ms=0.0, measured_age_ms=0.0)
    plan = PlanView(True, planned, infer_ms, overhead_ms([measured_ms]), factor)
    now = ClientInstant(NS_PER_S)
    captured = ClientInstant(now - ms_to_ns(lag_ms))
    preparation_ms = ns_to_ms(now - captured) + encode_ms
    decision = decide(Stream(slo_ms, fps, SIZES), plan, link, (), exact, captured, now, encode_ms)

    def counted(response_bytes: float) -> int | None:
        """The largest size that leaves the time for the planned variant."""
        frame_bytes = exact.of_variants(SIZES)
        assume(all(abs(size * 8.0 * fps / (UTILISATION * rate_bps) - 1.0) > 1e-9 for size in frame_bytes))
        rest = (rtt_ms, plan.overhead_ms, response_bytes, preparation_ms)
        budget_ms = budgets(slo_ms, fps / UTILISATION, frame_bytes, rate_bps, *rest)
        assume(all(abs(budget - factor * infer_ms) > 1e-6 for budget in budget_ms))
        return next((size for size in range(planned, -1, -1) if budget_ms[size] >= factor * infer_ms), None)

    sent = decision.variant if isinstance(decision, Send) and decision.jpeg_quality == DEFAULT_QUALITY else None
    assert sent == counted(0.0)
    assert (counted(DEFAULT_RESPONSE_BYTES) or 0) <= (sent or 0)


@given(st.integers(0, 10), st.lists(st.floats(0.0, 200.0), min_size=11, max_size=11), st.floats(0.1, 100.0))
def test_a_server_never_asks_for_more_than_the_plan(planned: int, budget_ms: list[float], infer_ms: float) -> None:
    asked = next_variant(planned, budget_ms, infer_ms)
    assert 0 <= asked <= planned
    assert asked == 0 or budget_ms[asked] >= 2.0 * infer_ms


@given(rates, st.floats(0.0, 50.0), st.floats(1.0, 1e7), st.floats(0.0, 20.0))
def test_a_transfer_ends_when_its_bits_have_passed(
    steps: list[float], start_s: float, size_bits: float, offset_s: float
) -> None:
    trace = Trace.uniform("t", steps).at_offset(offset_s)
    end_s = trace.finish_s(start_s, size_bits)
    assert end_s >= start_s
    carried = trace.delivered_bits(end_s) - trace.delivered_bits(start_s)
    assert math.isclose(carried, size_bits, rel_tol=1e-6, abs_tol=1.0 + 1e-9 * trace.delivered_bits(end_s))


@given(st.floats(0.0, 1e4), st.integers(0, 50))
def test_the_end_of_an_outage_is_found_however_it_is_rounded(begun_s: float, cycle: int) -> None:
    trace = Trace.uniform("t", [0.0, 8e6], 0.3).begun_at(begun_s)
    end_s = begun_s + 0.6 * cycle + 0.3
    assert math.isclose(trace.up_s(end_s), end_s, abs_tol=1e-6)


@given(rates, st.integers(0, 20_000), st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(1, 60_000)), max_size=40))
def test_a_pacer_never_passes_more_than_trace_and_bucket(
    steps: list[float], burst_bytes: int, chunks: list[tuple[float, int]]
) -> None:
    trace = Trace.uniform("t", steps)
    pacer = Pacer(trace, burst_bytes)
    now_s, total_bits, last_s = 0.0, 0.0, 0.0
    for pause_s, size in chunks:
        now_s += pause_s
        passed_s = pacer.reserve(now_s, size)
        total_bits += size * 8.0
        assert passed_s >= max(now_s, last_s) - 1e-9
        assert trace.rate_bps(passed_s + 1e-6) > 0.0 or trace.rate_bps(max(0.0, passed_s - 1e-6)) > 0.0
        assert total_bits <= trace.delivered_bits(passed_s) * (1 + 1e-9) + burst_bytes * 8.0 + 8.0
        last_s = passed_s
