"""What HTTP costs: streams over the server and over its bare engine, by turns."""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

Address = tuple[str, int]
Tell = Callable[[str], dict[str, Any]]


def served_seconds(address: Address, streams: int, tokens: int) -> float:
    """Seconds for some greedy streams. The client only counts bytes: what it takes is missing to the server.

    Errors: ConnectionError if a stream does not end as it should.
    """
    chosen = selectors.DefaultSelector()
    tails: dict[socket.socket, bytes] = {}
    started = time.perf_counter()
    for number in range(streams):
        one = socket.create_connection(address)
        one.sendall(_request(number, tokens))
        tails[one] = b""
        chosen.register(one, selectors.EVENT_READ)
    while chosen.get_map():
        for key, _ in chosen.select():
            one = key.fileobj
            assert isinstance(one, socket.socket)
            if data := one.recv(65536):
                tails[one] = (tails[one] + data)[-64:]
                continue
            chosen.unregister(one)
            one.close()
            if b"data: [DONE]" not in tails[one]:
                raise ConnectionError(f"a stream ended with {tails[one]!r}")
    return time.perf_counter() - started


def _request(number: int, tokens: int) -> bytes:
    body = {"prompt": [number + 5] * 8, "temperature": 0, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    content = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def compare(address: Address, tell: Tell, streams: int, tokens: int, rounds: int) -> dict[str, Any]:
    """What the server adds, round by round; `tell` is how load_server.py is asked. The first round warms up.

    Wall-clock rates of shared cores are noisy. The CPU time of the event loop's thread is less so: the cores that draw
    the tokens lack it.
    """

    def bare() -> float:
        return float(tell(f"bare {streams} {tokens}")["seconds"])

    def served() -> float:
        return served_seconds(address, streams, tokens)

    count, alone, over_http, loop = streams * tokens, [], [], []
    for number in range(rounds + 1):
        # Who goes first changes, so that a machine that grows slower favours neither.
        first = bare() if number % 2 else None
        before = tell("loop")["seconds"]
        seconds = served()
        taken = tell("loop")["seconds"] - before
        alone.append(bare() if first is None else first)
        over_http.append(seconds)
        loop.append(taken)
        print(
            f"round {number}: bare {count / alone[-1]:.0f}, served {count / seconds:.0f} tok/s, "
            f"the loop's thread {taken / count * 1e6:.1f} us of CPU a token",
            flush=True,
        )
    alone, over_http, loop = alone[1:], over_http[1:], loop[1:]
    ratios = [served / bare for served, bare in zip(over_http, alone, strict=True)]
    return {
        "streams": streams,
        "tokens": tokens,
        "rounds": rounds,
        "bare_tokens_per_second": count / statistics.median(alone),
        "served_tokens_per_second": count / statistics.median(over_http),
        "overhead": statistics.median(ratios) - 1,
        "overhead_quartiles": [quartile - 1 for quartile in statistics.quantiles(ratios, n=4)[::2]],
        "overhead_of_medians": statistics.median(over_http) / statistics.median(alone) - 1,
        "overhead_by_round": [ratio - 1 for ratio in ratios],
        "loop_microseconds_per_token": statistics.median(loop) / count * 1e6,
        "loop_microseconds_per_token_by_round": [taken / count * 1e6 for taken in loop],
    }
