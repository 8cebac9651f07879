from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from moonjelly.backoff import Backoff
from moonjelly.errors import FrameError
from moonjelly.preparation import PERCENT, WINDOW, WINDOW_NS, Preparation
from moonjelly.sdk.encoding import encode, squash
from moonjelly.sdk.results import FrameResult
from moonjelly.sdk.statistics import Tally
from moonjelly.types import Detections, Outcome
from moonjelly.units import ClientInstant, ms_to_ns, ns_to_ms


def result(outcome: Outcome, latency_ms: int | None = None) -> FrameResult:
    received = None if latency_ms is None else ClientInstant(latency_ms * 1_000_000)
    sent = None if received is None else ClientInstant(0)
    return FrameResult(1, outcome, "", Detections.empty(), ClientInstant(0), sent_ns=sent, received_ns=received)


def test_backoff_doubles_to_its_limit_and_spreads_clients() -> None:
    backoff = Backoff(first_s=0.1, limit_s=1.0)
    assert backoff.delay_s(0.5) == 0.0
    delays = []
    for _ in range(6):
        backoff = backoff.failed()
        delays.append(backoff.delay_s(0.0))
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])
    assert backoff.delay_s(0.999) < 1.0
    for _ in range(5000):
        backoff = backoff.failed()
    assert backoff.delay_s(0.0) == 0.5
    assert backoff.failed(held_s=1.0).delay_s(1.0) == 1.0
    assert backoff.failed(held_s=1.1).delay_s(1.0) == 0.1, "what has worked for longer than that begins anew"


def test_statistics_count_every_outcome() -> None:
    tally = Tally()
    assert tally.snapshot().miss_rate == 0.0
    assert tally.snapshot().latency_p99_ms is None
    for latency in range(1, 101):
        tally.add(result(Outcome.ON_TIME, latency))
    tally.add(result(Outcome.DROPPED, 1000))
    for outcome in (Outcome.SKIPPED, Outcome.REJECTED, Outcome.LOST):
        tally.add(result(outcome))
    snapshot = tally.snapshot()
    assert (snapshot.captured, snapshot.sent, snapshot.on_time) == (104, 101, 100)
    assert snapshot.miss_rate == pytest.approx(4 / 104)
    assert (snapshot.latency_p50_ms, snapshot.latency_p99_ms) == (50, 99)
    assert sum(snapshot.outcomes.values()) == snapshot.captured


@pytest.mark.parametrize("shape", [(48, 64), (200, 100), (32, 32)])
def test_encoding_squashes_to_the_square(shape: tuple[int, int]) -> None:
    picture = np.zeros((*shape, 3), np.uint8)
    picture[:, shape[1] // 2 :] = (250, 10, 10)
    encoded = encode(picture, 32, 3, 90)
    decoded = simplejpeg.decode_jpeg(encoded.data)
    assert decoded.shape == (32, 32, 3)
    assert (encoded.width, encoded.height, encoded.variant, encoded.quality) == (32, 32, 3, 90)
    assert encoded.encode_ms > 0
    # red stays red: the order of channels is kept, and left is left
    assert decoded[16, 28, 0] > 200
    assert decoded[16, 28, 2] < 60
    assert decoded[16, 3].max() < 30


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        (np.zeros((4, 4), np.uint8), r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((0, 4, 3), np.uint8), "got 4x0"),
        (np.zeros((1, 16_385, 3), np.uint8), "got 16385x1"),
        ("picture", "got str"),
    ],
)
def test_what_is_no_picture(picture: np.ndarray, text: str) -> None:
    with pytest.raises(FrameError, match=text):
        encode(picture, 32, 0, 90)


@pytest.mark.parametrize(("height", "width", "size"), [(64, 64, 16), (130, 260, 33), (9, 7, 32), (360, 640, 352)])
def test_a_picture_is_stretched_to_the_square_without_changing_its_colour(height: int, width: int, size: int) -> None:
    grey = np.full((height, width, 3), (10, 120, 250), np.uint8)
    np.testing.assert_array_equal(squash(grey, size), np.full((size, size, 3), (10, 120, 250), np.uint8))


def test_fine_detail_of_a_large_picture_is_averaged_not_skipped() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    np.testing.assert_array_equal(squash(stripes, 32), np.full((32, 32, 3), 100, np.uint8))


def prepared_ms(delays_ms: list[float], idle_ms: float = 0.0) -> float:
    """What is expected after frames 33 ms apart that took so long, and some idling."""
    made = Preparation()
    for number, delay_ms in enumerate(delays_ms):
        captured = ClientInstant(ms_to_ns(33.0 * number))
        made.choose(captured, ClientInstant(captured + ms_to_ns(1.0)))
        made.finish(captured, ClientInstant(captured + ms_to_ns(1.0 + delay_ms)), 0.5)
    return made.expected_ms(ClientInstant(ms_to_ns(33.0 * len(delays_ms) + idle_ms)))


def test_preparing_a_frame_is_expected_to_take_what_it_does_on_a_busy_host() -> None:
    rare = round(WINDOW * (1.0 - PERCENT / 100.0))
    assert prepared_ms([]) == 0.0
    assert prepared_ms([3.0] * 10) == 3.0
    assert prepared_ms([3.0] * (WINDOW - rare + 1) + [40.0] * (rare - 1)) == 3.0
    assert prepared_ms([3.0] * (WINDOW - rare - 1) + [40.0] * (rare + 1)) == 40.0
    assert prepared_ms([40.0] * 5 + [3.0] * WINDOW) == 3.0


def test_how_long_frames_took_is_soon_forgotten() -> None:
    assert prepared_ms([90.0] * WINDOW, idle_ms=ns_to_ms(WINDOW_NS) + 100.0) == 0.0


def test_a_frame_that_another_program_chose_took_its_encoding() -> None:
    made = Preparation()
    made.finish(ClientInstant(5), ClientInstant(ms_to_ns(900.0)), 2.5)
    assert made.expected_ms(ClientInstant(ms_to_ns(901.0))) == 2.5


def test_choices_that_never_become_frames_are_forgotten() -> None:
    made = Preparation()
    for instant in range(1000):
        made.choose(ClientInstant(instant), ClientInstant(instant))
    made.finish(ClientInstant(0), ClientInstant(ms_to_ns(50.0)), 2.0)
    assert made.expected_ms(ClientInstant(ms_to_ns(50.0))) == 2.0
