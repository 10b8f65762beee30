"""From the engine's thread to the server's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from fastapi import Request

from seamount.engine import Chunk, Engine, SamplingParams


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """Runs the engine's steps in a thread of their own, so that the event loop stays free."""
    stopped = threading.Event()
    # A daemon, because a step of the model that is under way must not keep a stopped server alive.
    thread = threading.Thread(target=engine.run, args=(stopped,), daemon=True, name="engine")
    thread.start()
    try:
        yield
    finally:
        engine.stop()
        stopped.set()
        engine.wake()
        await asyncio.to_thread(thread.join, 1)


class Answer:
    """An answer on its way from the engine."""

    def __init__(self, engine: Engine, request_id: int, arrived: asyncio.Queue[Chunk | Exception | None]) -> None:
        self._engine, self._request_id, self._arrived = engine, request_id, arrived
        # Also when nobody ever asks for the chunks.
        weakref.finalize(self, engine.abort, request_id).atexit = False

    @classmethod
    async def of(cls, engine: Engine, prompt: Sequence[int], params: SamplingParams) -> Self:
        """Hands a prompt to the engine.

        Errors: those of Engine.add.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

        def sink(item: Chunk | Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        # In a thread, because compiling a grammar may take a while.
        return cls(engine, await asyncio.to_thread(engine.add, prompt, params, sink), arrived)

    async def chunks(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """The chunks as they come. The work stops as soon as the client hangs up or this iterator is closed."""
        watch = asyncio.create_task(self._close_when_gone(request))
        try:
            while (item := await self._arrived.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            watch.cancel()
            self._engine.abort(self._request_id)

    async def _close_when_gone(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._engine.abort(self._request_id)
