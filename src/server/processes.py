"""The endpoint's side of its children: executors with their arenas, and the planner."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections import deque
from collections.abc import Awaitable, Callable

from moonjelly.backoff import Backoff
from moonjelly.errors import MoonjellyError
from server import child, ipc
from server.arena import Arena
from server.channel import PeerGone

_log = logging.getLogger(__name__)
STOP_PATIENCE_S = 2.0
_RESTART_BACKOFF = Backoff(first_s=0.05, limit_s=10.0)

OnMessage = Callable[[ipc.Message], None]
OnDeath = Callable[[str], None]


class StartError(MoonjellyError):
    """A child that refused to start; its text and exit code are the child's."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # type: ignore[misc]


class ProcessLink:
    """One child and the event loop's end of its channel.

    Args:
        module: to run.
        first: message that configures it.
        pass_fds: descriptors that it inherits.
        on_message: called in the loop with whatever comes after its readiness.
        on_death: called once, with the cause in words, when it is gone without having been stopped.
        bound: it is killed with this process.
    """

    def __init__(
        self,
        module: str,
        first: ipc.Message,
        pass_fds: tuple[int, ...],
        on_message: OnMessage,
        on_death: OnDeath,
        *,
        bound: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_death = on_death
        self._waiting: deque[ipc.Message] = deque()
        self._drained = asyncio.Event()
        self._ready: asyncio.Future[ipc.Message] = self._loop.create_future()
        self._child = child.start(module, pass_fds, bound=bound)
        self._child.channel.set_blocking(False)
        self._alive = True
        self._loop.add_reader(self._child.channel.fileno(), self._readable)
        self.send(first)

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.process.pid

    async def ready(self) -> ipc.Message:
        """The child's first message.

        Raises:
            StartError: it refused, or died before it said anything.
        """
        return await self._ready

    def send(self, message: ipc.Message) -> None:
        """Send now, or as soon as the child has read what is before it."""
        if not self._alive:
            return
        if self._waiting:
            self._waiting.append(message)
            return
        try:
            if not self._child.channel.send(message):
                self._waiting.append(message)
                self._loop.add_writer(self._child.channel.fileno(), self._writable)
        except PeerGone:
            _log.debug("child %d has gone; the reader will notice", self.pid)

    def kill(self) -> None:
        """End it at once; :attr:`on_death` follows."""
        if self._alive:
            self._child.process.kill()

    @property
    def backlog(self) -> int:
        """Messages that the child has not taken yet."""
        return len(self._waiting)

    async def sent(self) -> None:
        """Wait until the child has taken everything, or died."""
        self._drained.clear()
        if self._waiting and self._alive:
            await self._drained.wait()

    async def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        """Ask it to end, and make sure that it does."""
        if self._alive:
            self._detach()
            await asyncio.to_thread(self._child.stop, patience_s)

    def _readable(self) -> None:
        """One message per call: the loop calls again while there are more, and nothing due in between is held up."""
        try:
            message = self._child.channel.receive()
        except PeerGone:
            self._died()
            return
        if self._ready.done():
            self._on_message(message)
        elif isinstance(message, ipc.Refused):
            self._ready.set_exception(StartError(message.error, message.exit_code))
        else:
            self._ready.set_result(message)

    def _writable(self) -> None:
        try:
            while self._waiting and self._child.channel.send(self._waiting[0]):
                self._waiting.popleft()
        except PeerGone:
            self._waiting.clear()
        if not self._waiting:
            self._loop.remove_writer(self._child.channel.fileno())
            self._drained.set()

    def _died(self) -> None:
        self._detach()
        self._child.process.kill()  # it has closed its channel: whatever it still does, nobody waits for it
        reason = _cause(self._child.process.wait())
        self._child.channel.close()
        if not self._ready.done():
            self._ready.set_exception(StartError(f"a process of the server died while it started: {reason}", 1))
        elif not self._ready.cancelled() and self._ready.exception() is None:  # one that refused was never up
            self._on_death(reason)

    def _detach(self) -> None:
        self._alive = False
        self._drained.set()
        self._loop.remove_reader(self._child.channel.fileno())
        if self._waiting:
            self._loop.remove_writer(self._child.channel.fileno())


def _cause(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    return f"it was killed by {signal.Signals(-status).name}"


class Restarts:
    """Starts a child again whenever it has died.

    Args:
        what: the child, for the log.
        start: starts it and waits until it is up; raises :class:`StartError`.
    """

    def __init__(self, what: str, start: Callable[[], Awaitable[None]]) -> None:
        self._what = what
        self._start = start
        self._backoff = _RESTART_BACKOFF
        self._up_s = math.inf  # not yet
        self._task: asyncio.Task[None] | None = None

    def held(self) -> None:
        """It is up."""
        self._up_s = asyncio.get_running_loop().time()

    def again(self) -> None:
        """It has died."""
        self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """Start it no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        held_s = asyncio.get_running_loop().time() - self._up_s
        while True:
            self._backoff = self._backoff.failed(held_s)
            held_s = 0.0
            await asyncio.sleep(self._backoff.delay_s(share=1.0))
            try:
                await self._start()
            except StartError as fault:
                _log.error("%s does not start again: %s", self._what, fault)
            else:
                self.held()
                return


class ExecutorLink:
    """The executor of one device over all its lives, and its arena.

    An idle executor gets a frame at once. A busy one gets the frames that came in one turn of the event loop together:
    each message costs a system call, and takes the processor from whoever reads the next frame.

    Args:
        configure: for each life, with the arena's descriptor.
        arena: where its frames lie.
        on_message: with what the executor answers (batches, switches, speeds, troubles).
        on_up: when it is warm.
        on_down: when it has died: cause, and the slots of its running batch.
    """

    def __init__(
        self,
        configure: Callable[[int], ipc.Configure],
        arena: Arena,
        on_message: OnMessage,
        on_up: Callable[[ipc.Ready], None],
        on_down: Callable[[str, frozenset[int]], None],
    ) -> None:
        self._configure = configure
        self.arena = arena
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._restarts = Restarts("an executor", self._start_again)
        self._gathered: list[ipc.Submit] = []
        self._unanswered = 0
        self._link: ProcessLink | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Of its present life."""
        return None if self._link is None else self._link.pid

    async def start(self) -> ipc.Ready:
        """Start and wait until it is warm.

        Raises:
            StartError: it refused.
        """
        fd = self.arena.fd
        self._link = ProcessLink("server.executor", self._configure(fd), (fd,), self._message, self._died)
        try:
            ready = await self._link.ready()
        except StartError:
            self._link = None
            raise
        assert isinstance(ready, ipc.Ready)
        self._restarts.held()
        return ready

    def submit(self, frame: ipc.Submit) -> None:
        """A frame; like :meth:`send`, but maybe at the end of this turn of the event loop."""
        self._gathered.append(frame)
        self._unanswered += 1
        if self._unanswered == 1:
            self._flush()
        elif len(self._gathered) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def send(self, message: ipc.Message) -> None:
        """To the present life, after all frames; lost when there is none."""
        self._flush()
        if self._link is not None:
            self._link.send(message)

    def kill(self) -> None:
        """End the present life."""
        if self._link is not None:
            self._link.kill()

    async def stop(self) -> None:
        """End for good."""
        self._stopping = True
        self._restarts.stop()
        if self._link is not None:
            await self._link.stop()
        self.arena.close()

    def _flush(self) -> None:
        frames, self._gathered = self._gathered, []
        if self._link is not None and frames:
            self._link.send(frames[0] if len(frames) == 1 else ipc.Submits(tuple(frames)))

    def _message(self, message: ipc.Message) -> None:
        if isinstance(message, ipc.Batch):
            self._unanswered -= len(message.answers)
        self._on_message(message)

    def _died(self, reason: str) -> None:
        self._link = None
        self._gathered = []
        self._unanswered = 0
        running = self.arena.running()
        self.arena.clear()
        self._on_down(reason, running)
        if not self._stopping:
            self._restarts.again()

    async def _start_again(self) -> None:
        self._on_up(await self.start())


class PlannerLink:
    """The planner process over all its lives; a request that dies with one is asked for again by the core."""

    def __init__(
        self, configure: ipc.ConfigurePlanner, on_reply: Callable[[ipc.PlanReply], None], on_lost: Callable[[], None]
    ) -> None:
        self._configure = configure
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._unsent: ipc.PlanRequest | None = None
        self._restarts = Restarts("the planner", self.start)
        self._link: ProcessLink | None = None

    @property
    def pid(self) -> int | None:
        """Of its present life."""
        return None if self._link is None else self._link.pid

    async def start(self) -> None:
        """Start and wait until the policy is loaded.

        Raises:
            StartError: it refused.
        """
        self._link = ProcessLink("server.planner", self._configure, (), self._message, self._died)
        if self._unsent is not None:
            self.ask(self._unsent)
        try:
            await self._link.ready()
        except StartError:
            self._link = None
            raise
        self._restarts.held()

    def ask(self, request: ipc.PlanRequest) -> None:
        """Send the request, or keep it until the planner is up again."""
        self._unsent = request
        if self._link is not None:
            self._link.send(request)
            self._unsent = None

    def kill(self) -> None:
        """End the present life; another follows."""
        if self._link is not None:
            self._link.kill()

    async def stop(self) -> None:
        """End for good."""
        self._restarts.stop()
        if self._link is not None:
            await self._link.stop()

    def _message(self, message: ipc.Message) -> None:
        if isinstance(message, ipc.PlanReply):
            self._on_reply(message)

    def _died(self, reason: str) -> None:
        _log.error("the planner died: %s; another one starts", reason)
        self._link = None
        self._restarts.again()
        self._on_lost()
