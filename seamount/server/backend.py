"""Models that answer, behind an interface that may live in another process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

from seamount.engine import Chunk, Engine, SamplingParams
from seamount.tokenizer import Tokenizer

Arrival = tuple[int, Chunk | Exception | None]
"""The prompt that it belongs to, and what the engine's sinks get."""


EVENTS_PER_SECOND = 80
"""Of all streams together; so sixteen of them get something every 200 ms, and one alone most tokens at once."""


class Backend(Protocol):
    """One model. Only plain values cross this border."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""

    @property
    def context_length(self) -> int:
        """Tokens of a prompt and its answer."""

    async def submit(self, prompts: Sequence[list[int]], params: SamplingParams) -> Stream:
        """Ask for the answers to some prompts.

        Errors: those of Engine.add; then no prompt is answered.
        """

    def metrics(self) -> dict[str, Any]:
        """The engine's counters and gauges."""


class Stream:
    """What arrives for one request. One that is dropped ends its work. All but `put` is for the event loop alone."""

    def __init__(self) -> None:
        self._arrived: list[Arrival] = []
        self._waiter: asyncio.Future[None] | None = None
        self._end: list[weakref.finalize[[], Stream]] = []
        self._has_news = False

    def put(self, arrival: Arrival) -> None:
        """Add something, from any thread, without waking anybody."""
        self._arrived.append(arrival)

    @property
    def is_holding(self) -> bool:
        """Whether something has arrived that nobody has taken."""
        return bool(self._arrived)

    def nudge(self) -> None:
        """Wake whoever waits, or will, also where there is nothing new."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Arrival]:
        """All that arrived since the last time, after a nudge."""
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._has_news = False
        taken = self._arrived[:]
        # What another thread adds meanwhile stays.
        del self._arrived[: len(taken)]
        return taken

    def ends_with(self, abort: Callable[[], None]) -> None:
        """What is to be called once this is closed or dropped."""
        self._end.append(weakref.finalize(self, abort))
        self._end[-1].atexit = False

    def close(self) -> None:
        """End the work that is not done."""
        for end in self._end:
            end()

    def finish(self) -> None:
        """All of it has arrived, and nothing is to be ended."""
        for end in self._end:
            end.detach()


class LocalBackend:
    """A model in this process. The engine's thread and the event loop meet here.

    Tokens that come fast are handed on several at a time, those of all streams together: what the loop takes from the
    cores that draw them is taken at each waking. First and last tokens are never held back, others until the next one
    that comes after the interval, or a nudge.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokenizer, self.context_length = engine.tokenizer, engine.context_length
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._urgent: deque[Stream] = deque()
        self._due = 0.0
        self._is_called = False

    async def submit(self, prompts: Sequence[list[int]], params: SamplingParams) -> Stream:
        """See Backend."""
        stream, loop = Stream(), asyncio.get_running_loop()
        self._streams.add(stream)
        reference = weakref.ref(stream)
        try:
            for index, prompt in enumerate(prompts):
                sink = partial(self._post, loop, reference, index)
                if params.grammar is None:
                    request_id = self.engine.add(prompt, params, sink)
                else:  # compiling may take a while
                    request_id = await asyncio.to_thread(self.engine.add, prompt, params, sink)
                stream.ends_with(partial(self.engine.abort, request_id))
        except BaseException:
            stream.close()
            raise
        return stream

    def metrics(self) -> dict[str, Any]:
        """See Backend."""
        return self.engine.metrics.snapshot()

    def _post(
        self,
        loop: asyncio.AbstractEventLoop,
        reference: weakref.ref[Stream],
        index: int,
        item: Chunk | Exception | None,
    ) -> None:
        """In the engine's thread."""
        stream = reference()
        if stream is None:
            return
        stream.put((index, item))
        is_between = isinstance(item, Chunk) and item.finish_reason is None and item.prompt is None
        if not is_between:
            self._urgent.append(stream)
        if not self._is_called and (not is_between or time.monotonic() >= self._due):
            self._is_called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(self._nudge)

    def _nudge(self) -> None:
        self._is_called = False
        while self._urgent:
            self._urgent.popleft().nudge()
        now = time.monotonic()
        if now >= self._due:
            self._due = now + len(self._streams) / EVENTS_PER_SECOND
            for stream in self._streams:
                if stream.is_holding:
                    stream.nudge()


@asynccontextmanager
async def running(engines: Sequence[Engine]) -> AsyncIterator[None]:
    """Runs the steps of all engines in one thread of their own, so that the event loop stays free."""
    if not engines:
        yield
        return
    stopped, first = threading.Event(), engines[0]
    # A daemon, because a step of the model that is under way must not keep a stopped server alive.
    thread = threading.Thread(target=first.run, args=(stopped, engines[1:]), daemon=True, name="engine")
    thread.start()
    try:
        yield
    finally:
        for engine in engines:
            engine.stop()
        stopped.set()
        first.wake()
        await asyncio.to_thread(thread.join, 1)
