"""What a server holds and has written down once its clients are gone."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowd import Address, Asked
from light_client import fetch

from seamount.server.metering import Entry, Records

_HELD = ("seamount_running_answers", "seamount_waiting_requests", "seamount_cache_pages_used")


async def gauges(address: Address) -> dict[str, float]:
    """Every sample of /metrics without its labels; where a name has several, their sum."""
    found: Counter[str] = Counter()
    for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", (await fetch(address, "/metrics")).decode(), re.M):
        found[name] += float(value)
    return dict(found)


async def when_idle(address: Address, patience: float = 30) -> dict[str, float]:
    """What of the engine's is still held: nothing, or what remains after some seconds."""
    end = time.monotonic() + patience
    while True:
        known = await gauges(address)
        held = {name: known[name] for name in _HELD if known[name]}
        if not held or time.monotonic() > end:
            return held
        await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Process:
    """What a process holds. Units: bytes of its own memory."""

    files: int
    """Open files, sockets among them."""
    sockets: int
    threads: int
    memory: int

    @classmethod
    def of(cls, number: int) -> Process:
        """The process of a number, on Linux."""
        folder = Path("/proc") / str(number)
        links = [_link(one) for one in (folder / "fd").iterdir()]
        status = dict(re.findall(r"^(\w+):\s*(\d+)", (folder / "status").read_text(encoding="ascii"), re.M))
        sockets = sum(link.startswith("socket:") for link in links)
        return cls(len(links), sockets, int(status["Threads"]), int(status["RssAnon"]) * 1024)


async def at_rest(number: int, files: float = math.inf, patience: float = 30) -> Process:
    """A process once it holds no more than so many files, the same for a second; or after some seconds, as it is.

    A client reads an answer's end before the server has closed that connection.
    """
    end = time.monotonic() + patience
    held = Process.of(number)
    while True:
        await asyncio.sleep(1)
        earlier, held = held, Process.of(number)
        if held.files == earlier.files <= files or time.monotonic() > end:
            return held


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed meanwhile
        return ""


def unwritten(asked: Iterable[Asked], rows: Iterable[Entry], *, is_killed: bool = False) -> list[str]:
    """What the ledger lacks or has wrongly: each whole answer has one row, which says answered and counts its tokens;
    who left has one at most; and nobody else has any.

    Of a server that was killed, answers count whose last token arrived, though the stream's end did not.
    """
    by_id: dict[str, list[Entry]] = {}
    for row in rows:
        by_id.setdefault(row.request_id, []).append(row)
    faults = []
    for one in asked:
        answer = one.answer
        found = by_id.pop(answer.request_id, [])
        is_whole = answer.end == "whole" or (is_killed and answer.has_all(one.question.case.num_choices))
        if is_whole:
            said = [(row.outcome, row.output_tokens) for row in found]
            if said != [("answered", one.question.output_tokens)]:
                faults.append(f"{answer.request_id} was answered, and its rows are {said}")
        elif len(found) > 1 or any(row.outcome == "failed" for row in found):
            faults.append(f"{answer.request_id} {answer.end}, and its rows are {found}")
    # Of another run over the same database, or of the answers asked for alone.
    strangers = [name for name in by_id if not name.startswith("alone-")]
    return faults + [f"a row of nobody's: {name}" for name in strangers]


def outcomes(database: Path) -> dict[str, int]:
    """How many rows of each outcome there are."""
    return dict(Counter(row.outcome for row in Records(database).rows()))


def first_seconds(asked: Iterable[Asked]) -> dict[str, Any]:
    """p50 and p99 from sending to the first text, of those that were streamed."""
    found = sorted(one.answer.first_seconds for one in asked if one.answer.first_seconds is not None)
    return {"p50": found[len(found) // 2], "p99": found[len(found) * 99 // 100], "streams": len(found)} if found else {}
