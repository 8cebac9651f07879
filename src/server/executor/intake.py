"""What an executor process has to do next: frames from the endpoint, made ready, and news from its own loader.

Two ways in, one interface. A device that looks at no pixels reads the channel in its own thread, with no hop on the
way. A device that does has a receiver thread and a small pool that decode and preprocess on arrival, also while a
batch runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moonjelly.errors import FrameError
from server import ipc
from server.channel import Channel, PeerGone

_log = logging.getLogger(__name__)


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A frame that can join a batch.

    Attributes:
        submit: what the endpoint said of it.
        image: ``(s, s, 3)`` uint8 RGB, or ``None`` for a device that does not look.
        queued_ns: when it was ready.
        preprocess_ns: what decoding and resizing took.
        error: why it cannot join one; empty when it can.
    """

    submit: ipc.Submit
    image: NDArray[np.uint8] | None
    queued_ns: int
    preprocess_ns: int
    error: str = ""


class Loaded(msgspec.Struct, frozen=True):
    """The loader has made ``serve``'s variant resident, or says why it could not. ``ahead``: nobody runs it yet."""

    serve: ipc.Serve
    ahead: bool = False
    error: str = ""


class Closed(msgspec.Struct, frozen=True):
    """The endpoint has gone."""


Prepare = Callable[[ipc.Submit], NDArray[np.uint8] | None]
Work = Prepared | Loaded | Closed | ipc.Serve | ipc.Forget


class Intake(Protocol):
    """Where the executor's loop waits."""

    def take(self, timeout_s: float | None) -> list[Work]:
        """All work that is there; waits for some, at most ``timeout_s`` seconds (``None``: as long as it takes)."""
        ...

    def post(self, work: Work) -> None:
        """From any thread: hand work to the loop."""
        ...

    def close(self) -> None:
        """Free descriptors and end threads."""
        ...


class DirectIntake:
    """Reads the channel in the loop's own thread, and checks frames there.

    Args:
        channel: to the endpoint.
        prepare: checks one frame; cheap.
    """

    def __init__(self, channel: Channel, prepare: Prepare) -> None:
        self._channel = channel
        self._prepare = prepare
        self._posted: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._incoming = channel.fileno()

    def take(self, timeout_s: float | None) -> list[Work]:
        """See :class:`Intake`."""
        asked_ns = time.monotonic_ns()
        readable, _, _ = select.select((self._incoming, self._wake), (), (), timeout_s)
        works: list[Work] = []
        if self._wake in readable:
            os.eventfd_read(self._wake)
            while not self._posted.empty():
                works.append(self._posted.get())
        if self._incoming in readable:
            self._read(works, asked_ns)
        return works

    def _read(self, works: list[Work], asked_ns: int) -> None:
        try:
            for message in chain((self._channel.receive(),), self._channel.ready()):
                if isinstance(message, ipc.Submit):
                    works.append(self._prepared(message, asked_ns))
                elif isinstance(message, ipc.Submits):
                    works += [self._prepared(submit, asked_ns) for submit in message.frames]
                elif isinstance(message, (ipc.Serve, ipc.Forget)):
                    works.append(message)
        except PeerGone:
            works.append(Closed())

    def _prepared(self, submit: ipc.Submit, asked_ns: int) -> Prepared:
        """A frame that was given before the loop asked has waited for a batch: that is queueing, and no way to go."""
        frame = prepared(submit, self._prepare)
        if submit.given_ns >= asked_ns:
            return frame
        return msgspec.structs.replace(frame, queued_ns=submit.given_ns + frame.preprocess_ns)

    def post(self, work: Work) -> None:
        """See :class:`Intake`."""
        self._posted.put(work)
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """See :class:`Intake`."""
        os.close(self._wake)


class PreparingIntake:
    """A receiver thread reads the channel and a pool prepares frames.

    Args:
        channel: to the endpoint, blocking.
        prepare: decodes and resizes one frame for the variant that is active when it is called; called from the pool.
        threads: of the pool.
    """

    def __init__(self, channel: Channel, prepare: Prepare, threads: int) -> None:
        self._channel = channel
        self._prepare = prepare
        self._inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._receiver = threading.Thread(target=self._receive, name="receiver", daemon=True)
        self._receiver.start()

    def take(self, timeout_s: float | None) -> list[Work]:
        """See :class:`Intake`."""
        works: list[Work] = []
        with contextlib.suppress(queue.Empty):
            works.append(self._inbox.get(timeout=timeout_s))
            while True:
                works.append(self._inbox.get_nowait())
        return works

    def post(self, work: Work) -> None:
        """See :class:`Intake`."""
        self._inbox.put(work)

    def close(self) -> None:
        """See :class:`Intake`."""
        self._pool.shutdown(cancel_futures=True)

    def _receive(self) -> None:
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, ipc.Submit):
                    self._pool.submit(self._work, message)
                elif isinstance(message, ipc.Submits):
                    for submit in message.frames:
                        self._pool.submit(self._work, submit)
                elif isinstance(message, (ipc.Serve, ipc.Forget)):
                    self._inbox.put(message)
        except PeerGone:
            self._inbox.put(Closed())
        except (OSError, RuntimeError) as fault:
            _log.warning("no more is read from the endpoint: %s: %s", type(fault).__name__, fault)
            self._inbox.put(Closed())

    def _work(self, submit: ipc.Submit) -> None:
        self._inbox.put(prepared(submit, self._prepare))


def prepared(submit: ipc.Submit, prepare: Prepare) -> Prepared:
    """Run ``prepare`` and time it; whatever it raises becomes the frame's error."""
    began_ns = time.monotonic_ns()
    image, error = None, ""
    try:
        image = prepare(submit)
    except FrameError as fault:
        error = str(fault)
    except Exception as fault:  # a defect, but the frame must be answered and its thread must live
        _log.exception("preprocessing failed")
        error = f"preprocessing failed: {type(fault).__name__}: {fault}"
    ended_ns = time.monotonic_ns()
    return Prepared(submit, image, ended_ns, ended_ns - began_ns, error)
