"""Hundreds of streaming clients at once, of whom some hang up: is every answer the right one, and does nothing remain?

    python bench/load.py [--clients 200] [--seconds 120] [--warm-up 20]
    python bench/load.py --kill          the server is killed in the midst of it: is what was answered in the ledger?
    python bench/load.py --overhead      16 streams over the server and over its engine without HTTP, by turns
    python bench/load.py --model FOLDER --quantize ""     a checkpoint that is packed already
    python bench/load.py --url URL       the answers of another server that has the same paths

Every request is greedy or has a seed, so that its answer is known: it is the one that it got alone, text, reasons,
log-probabilities and counts. Prompts share beginnings; some ask for two answers, some for JSON after a schema, some are
not streamed, and three in ten hang up: before the first token, within the answer, or shortly before its end. Afterwards
the engine must hold no page, the process no more sockets, tasks or memory than after the warm-up, and the ledger one
row for each answer. Exit status 1 if something is wrong. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from after_load import at_rest, first_seconds, gauges, outcomes, unwritten, when_idle
from crowd import Address, Asked, Crowd, Question, ask_alone, cases_of
from overhead import compare

import seamount
from seamount.benchmark import processor
from seamount.evaluate import shipped_texts
from seamount.server.metering import Records

MAX_GROWTH = 64 << 20
"""Bytes that a process may have more after the load than after the warm-up: allocators keep some of what they had."""


class Server:
    """A server in a process of its own, with a ledger of its own."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.database = folder / "server.db"
        self._log = (folder / "log").open("w+", encoding="utf-8")
        script = Path(__file__).with_name("load_server.py")
        command = [sys.executable, str(script), arguments.model, "--database", str(self.database)]
        command += ["--memory", arguments.memory]
        command += ["--quantize", arguments.quantize] if arguments.quantize else []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.address = address_of(self._line())

    def tell(self, command: str) -> dict[str, Any]:
        """What the process answers to a line; see load_server.py."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self.process.terminate()
        return self.process.wait(60)

    def errors(self) -> list[str]:
        """What its log has of errors, and what is no line of the log."""
        self._log.seek(0)
        return [line.strip() for line in self._log if '"level": "info"' not in line]

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server ended with status {self.process.wait()}: {self.errors()[-3:]}")
        return line


def address_of(url: str) -> Address:
    """Host and port."""
    parts = urlsplit(url.strip())
    return parts.hostname or "127.0.0.1", parts.port or 80


def summary(asked: list[Asked], seconds: float) -> dict[str, Any]:
    """Counts and rates of a load."""
    whole = [one for one in asked if one.answer.end == "whole"]
    ends = {end: sum(one.answer.end == end for one in asked) for end in ("whole", "left", "refused", "broken")}
    return {
        "seconds": seconds,
        **ends,
        "streams": sum(one.is_stream for one in whole),
        "left_before_first_text": sum(one.answer.end == "left" and not _has_text(one) for one in asked),
        "answers_per_second": len(whole) / seconds,
        "tokens_per_second_in_whole_answers": sum(one.question.output_tokens for one in whole) / seconds,
        "first_token_seconds": first_seconds(asked),
    }


def _has_text(one: Asked) -> bool:
    return any(choice.text for choice in one.answer.choices.values())


async def questions_for(address: Address, count: int) -> list[Question]:
    """What the crowd asks, each answered once with nobody else there."""
    return await ask_alone(address, cases_of(shipped_texts()[0].content, count))


async def press(crowd: Crowd, seconds: float) -> tuple[list[Asked], float]:
    """A load, and the seconds until its last answer."""
    started = time.monotonic()
    await crowd.run(seconds)
    return crowd.asked, time.monotonic() - started


async def under_load(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole: answers alone, a warm-up, the load, and what is left of it."""
    questions = await questions_for(server.address, arguments.cases)
    print(f"{len(questions)} requests answered alone; warming up", flush=True)
    warm, _ = await press(Crowd(server.address, questions, arguments.clients, seed=1), arguments.warm_up)
    faults = [f"held after the warm-up: {held}" for held in [await when_idle(server.address)] if held]
    before, living_before = await at_rest(server.process.pid), server.tell("living")
    print(f"{arguments.clients} clients for {arguments.seconds:g} seconds", flush=True)
    asked, seconds = await press(Crowd(server.address, questions, arguments.clients, seed=2), arguments.seconds)
    held = await when_idle(server.address)
    after, living_after = await at_rest(server.process.pid, before.files), server.tell("living")
    every = warm + asked
    faults += [one.fault for one in every if one.fault]
    faults += [f"held after the load: {held}"] if held else []
    faults += unwritten(every, Records(server.database).rows())
    for name, was, now in (
        ("sockets", before.sockets, after.sockets),
        ("open files", before.files, after.files),
        ("tasks", living_before["tasks"], living_after["tasks"]),
    ):
        faults += [f"{name}: {was} after the warm-up, {now} after the load"] if now > was else []
    if after.memory > before.memory + MAX_GROWTH:
        faults.append(f"memory: {before.memory} bytes after the warm-up, {after.memory} after the load")
    known = await gauges(server.address)
    counted = ("steps", "computed_tokens", "preemptions", "evictions")
    return {
        "questions": len(questions),
        "load": summary(asked, seconds),
        "process": {
            "after_warm_up": asdict(before) | living_before,
            "after_load": asdict(after) | living_after,
        },
        "engine": {name: known[f"seamount_{name}_total"] for name in counted},
        "ledger": outcomes(server.database),
        "faults": faults,
    }


async def under_kill(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    """A load in whose midst the server is killed."""
    questions = await questions_for(server.address, arguments.cases)
    crowd = Crowd(server.address, questions, arguments.clients, seed=3, leaving_share=0.1)
    load = asyncio.create_task(press(crowd, arguments.seconds))
    await asyncio.sleep(arguments.seconds * random.uniform(0.6, 0.9))
    crowd.is_over = True
    # Answers that arrive while it dies are the ones that matter.
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    asked, seconds = await load
    rows = list(Records(server.database).rows())
    wrong = [one.fault for one in asked if one.fault and one.answer.end == "whole"]
    answered = [one for one in asked if one.answer.has_all(one.question.case.num_choices)]
    return {
        "questions": len(questions),
        "load": summary(asked, seconds),
        "killed": {"answered": len(answered), "cut_off": sum(one.answer.end == "broken" for one in asked)},
        "ledger": outcomes(server.database),
        "faults": wrong + unwritten(asked, rows, is_killed=True),
    }


async def from_outside(address: Address, arguments: argparse.Namespace) -> dict[str, Any]:
    """The answers of a server that is not ours."""
    questions = await questions_for(address, arguments.cases)
    asked, seconds = await press(Crowd(address, questions, arguments.clients), arguments.seconds)
    faults = [one.fault for one in asked if one.fault]
    return {"questions": len(questions), "load": summary(asked, seconds), "faults": faults}


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for."""
    if arguments.url:
        return asyncio.run(from_outside(address_of(arguments.url), arguments))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), arguments)
        try:
            if arguments.overhead:
                found = compare(server.address, server.tell, 16, arguments.tokens, arguments.rounds)
                return {"overhead": found, "faults": []}
            if arguments.kill:
                return asyncio.run(under_kill(server, arguments))
            found = asyncio.run(under_load(server, arguments))
            status, errors = server.stop(), server.errors()
            found["faults"] += [f"the server ended with status {status}"] if status else []
            found["faults"] += [f"the server's log: {line}" for line in errors]
            return found
        finally:
            server.process.kill()
            server.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--quantize", default="int4")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--warm-up", type=float, default=20)
    parser.add_argument("--cases", type=int, default=48, help="different requests")
    parser.add_argument("--tokens", type=int, default=128, help="with --overhead: of each stream")
    parser.add_argument("--rounds", type=int, default=15, help="with --overhead")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--url")
    chosen.add_argument("--kill", action="store_true")
    chosen.add_argument("--overhead", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments)
    for fault in found["faults"][:20]:
        print(fault)
    document = {
        "bench": "load",
        "model": Path(arguments.model).name,
        "quantize": arguments.quantize,
        "memory": arguments.memory,
        "clients": arguments.clients,
        "processor": processor(),
        "seamount": seamount.__version__,
        **found,
        "faults": len(found["faults"]),
    }
    print(json.dumps(document))
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
