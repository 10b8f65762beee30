"""Two chats at once, shown as they are made, from an event loop; the second is stopped half-way."""

import asyncio
import threading

import seamount
from seamount.engine import Chunk, Engine, SamplingParams

QUESTIONS = ["Name three animals of the deep sea.", "Tell me a long story about a whale."]


async def answer(engine: Engine, question: str, most: int | None) -> str:
    """The answer to a question, or its first `most` chunks."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Chunk | Exception | None]()
    prompt = engine.tokenizer.chat([{"role": "user", "content": question}])
    params = SamplingParams(max_tokens=64, temperature=0)
    request_id = engine.add(prompt, params, lambda item: loop.call_soon_threadsafe(arrived.put_nowait, item))
    text, count = "", 0
    while isinstance(item := await arrived.get(), Chunk):
        text, count = text + item.text, count + 1
        print(f"{question[:8]}... {item.text!r}")
        if item.finish_reason:
            return text
        if count == most:
            engine.abort(request_id)
    if item is not None:
        raise item
    return text + " (stopped)"


async def main() -> None:
    """Runs the engine's steps in a thread beside the event loop."""
    engine, done = Engine(seamount.load("embedded")), threading.Event()
    thread = threading.Thread(target=engine.run, args=(done,))
    thread.start()
    for text in await asyncio.gather(answer(engine, QUESTIONS[0], None), answer(engine, QUESTIONS[1], 20)):
        print(f"\n{text}")
    done.set()
    engine.wake()
    thread.join()


asyncio.run(main())
