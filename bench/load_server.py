"""The server of bench/load.py: it also tells what lives in its process, and runs its engine without HTTP.

    python bench/load_server.py MODEL --database FILE [--quantize int4] [--memory 1GiB]

Its first line is the server's address. Each line on standard input is then answered by a line of JSON: `living` with
the asyncio tasks and all Python objects there are, `bare STREAMS TOKENS` with the seconds that so many streams take,
`loop` with the seconds of CPU time that the event loop's thread has taken so far.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seamount
from seamount.engine import Chunk, Engine, SamplingParams
from seamount.server import LocalBackend, ServedModel, Service, serve


def living() -> dict[str, int]:
    """Tasks that are not done, and all objects that the collector knows."""
    gc.collect()
    objects = gc.get_objects()
    tasks = [one for one in objects if type(one) is asyncio.Task and not one.done()]
    return {"tasks": len(tasks), "objects": len(objects)}


def bare(engine: Engine, streams: int, tokens: int) -> float:
    """Seconds for some greedy streams over sinks that do nothing."""
    ended = threading.Semaphore(0)

    def sink(item: Chunk | Exception | None) -> None:
        if not isinstance(item, Chunk) or item.finish_reason is not None:
            ended.release()

    started = time.perf_counter()
    for number in range(streams):
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        engine.add([number + 5] * 8, params, sink)
    for _ in range(streams):
        ended.acquire()
    return time.perf_counter() - started


def obey(engine: Engine) -> None:
    """Answers each line until there are no more."""
    clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)  # the event loop runs in it
    answers: dict[str, Callable[..., dict[str, Any]]] = {
        "living": living,
        "bare": lambda streams, tokens: {"seconds": bare(engine, int(streams), int(tokens))},
        "loop": lambda: {"seconds": time.clock_gettime(clock)},
    }
    for line in sys.stdin:
        command, *numbers = line.split()
        print(json.dumps(answers[command](*numbers)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--quantize")
    parser.add_argument("--memory")
    arguments = parser.parse_args()
    engine = Engine(seamount.load(arguments.model, quantize=arguments.quantize), arguments.memory)
    service = Service([ServedModel.of(arguments.model, LocalBackend(engine))], arguments.database)

    def show(lines: str) -> None:
        print(lines.splitlines()[0].rpartition(" ")[2], flush=True)
        threading.Thread(target=obey, args=(engine,), daemon=True).start()

    serve(service, port=0, show=show)


if __name__ == "__main__":
    main()
