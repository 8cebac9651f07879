from __future__ import annotations

import threading

import numpy as np
import pytest

from client.sources.buffer import QUEUE_FRAMES, BufferStrategy, FrameBuffer, Picture


def picture(index: int) -> Picture:
    return Picture(index, np.zeros((1, 1, 3), np.uint8))


def taken(buffer: FrameBuffer) -> list[int]:
    found = []
    while (one := buffer.take(0.0)) is not None:
        found.append(one.index)
    return found


@pytest.mark.parametrize(
    ("strategy", "kept"),
    [
        (BufferStrategy.LATEST, [QUEUE_FRAMES + 2]),
        (BufferStrategy.DROP_OLDEST, list(range(3, QUEUE_FRAMES + 3))),
        (BufferStrategy.DROP_LATEST, list(range(QUEUE_FRAMES))),
    ],
)
def test_what_is_kept_of_frames_that_nobody_takes(strategy: BufferStrategy, kept: list[int]) -> None:
    buffer = FrameBuffer(strategy)
    for index in range(QUEUE_FRAMES + 3):
        buffer.put(picture(index))
    assert taken(buffer) == kept
    assert buffer.dropped == QUEUE_FRAMES + 3 - len(kept)


def test_wait_holds_the_reader_back_and_loses_nothing() -> None:
    buffer = FrameBuffer(BufferStrategy.WAIT)
    reader = threading.Thread(target=lambda: [buffer.put(picture(index)) for index in range(3 * QUEUE_FRAMES)])
    reader.start()
    found = []
    while len(found) < 3 * QUEUE_FRAMES:
        one = buffer.take(10.0)
        assert one is not None
        found.append(one.index)
    reader.join()
    assert found == list(range(3 * QUEUE_FRAMES))
    assert buffer.dropped == 0


def test_closing_lets_a_waiting_reader_and_a_waiting_taker_go() -> None:
    buffer = FrameBuffer(BufferStrategy.WAIT)
    for index in range(QUEUE_FRAMES):
        buffer.put(picture(index))
    reader = threading.Thread(target=lambda: buffer.put(picture(99)))
    reader.start()
    buffer.close()
    reader.join(100)
    assert not reader.is_alive()
    assert taken(buffer) == list(range(QUEUE_FRAMES))
    assert buffer.take(60.0) is None
