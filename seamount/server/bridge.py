"""From the engine's threads to the server's event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

from fastapi import Request

from seamount.engine import Chunk, Generation


async def chunks_of(generation: Generation, request: Request) -> AsyncGenerator[Chunk, None]:
    """The chunks of an answer, computed in a thread of their own so that the event loop stays free.

    The work stops as soon as the client hangs up or this iterator is closed.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
    # A daemon, because a step of the model that is under way must not keep a stopped server alive.
    threading.Thread(target=_work, args=(generation, loop, arrived), daemon=True, name="generation").start()
    watch = asyncio.create_task(_close_when_gone(generation, request))
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        watch.cancel()
        generation.close()


def _work(
    generation: Generation, loop: asyncio.AbstractEventLoop, arrived: asyncio.Queue[Chunk | Exception | None]
) -> None:
    last: Exception | None = None
    try:
        with generation:
            for chunk in generation:
                loop.call_soon_threadsafe(arrived.put_nowait, chunk)
    except Exception as error:  # noqa: BLE001 - a request's border: raised again, and logged, where it is awaited
        last = error
    if not loop.is_closed():
        loop.call_soon_threadsafe(arrived.put_nowait, last)
        if last is not None:
            loop.call_soon_threadsafe(arrived.put_nowait, None)


async def _close_when_gone(generation: Generation, request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    generation.close()
