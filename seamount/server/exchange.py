"""One request between its dialect and the model: admitted, answered, written into the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from seamount.engine import Chunk, PromptFacts
from seamount.server.asking import Ask
from seamount.server.backend import Stream
from seamount.server.failures import CLIENT_GONE, Failure, failure_of, stopped
from seamount.server.formats import OutputParser, Piece, ToolCall
from seamount.server.limits import KEEP_ALIVE_SECONDS, MAX_CHOICES
from seamount.server.service import Admission, Outcome, Service
from seamount.server.tally import Tally


@dataclass(slots=True)
class Delta:
    """Some more of one answer."""

    choice: int
    pieces: list[Piece] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    finish_reason: str | None = None
    """stop, length or tool_calls, in an answer's last delta."""


class _Choice:
    """One answer, as its text is read."""

    def __init__(self, parser: OutputParser) -> None:
        self.parser = parser
        self._has_begun = self._has_called = False

    def read(self, chunks: list[Chunk], delta: Delta) -> int:
        """Take tokens into a delta; how many of them are the reasoning's."""
        num_reasoning = 0
        pieces: list[Piece] = []
        # One by one only as long as it matters which of them ended the reasoning.
        while chunks and (self.parser.is_reasoning or not self._has_begun):
            num_reasoning += self.parser.is_reasoning
            pieces += self.parser.push(chunks[0].text)
            # Not before: the mark that the reasoning begins with may be several tokens.
            self._has_begun = self._has_begun or bool(pieces)
            delta.chunks.append(chunks.pop(0))
        if text := "".join(chunk.text for chunk in chunks):
            pieces += self.parser.push(text)
        delta.chunks += chunks
        reason = delta.chunks[-1].finish_reason
        if reason is not None:
            pieces += self.parser.finish()
        self._has_called = self._has_called or any(isinstance(piece, ToolCall) for piece in pieces)
        delta.finish_reason = "tool_calls" if self._has_called and reason == "stop" else reason
        delta.pieces = pieces
        return num_reasoning


class Exchange:
    """A request that was admitted and handed to its model.

    Its row is in the ledger, and durable, before its last delta is given out. The work ends as soon as the client
    hangs up, the deadline passes, or the iterator over the deltas is closed.
    """

    def __init__(self, service: Service, ask: Ask, http: Request, admission: Admission, stream: Stream) -> None:
        self._service, self._ask, self._http = service, ask, http
        self._admission, self._stream = admission, stream
        self.tally = Tally(sum(map(len, ask.prompts)), http.state.started)
        self.prompts: dict[int, PromptFacts] = {}
        """What is known of each prompt; all of them once every answer has begun."""
        self._choices = [_Choice(ask.new_parser()) for _ in range(ask.num_choices)]
        self._open = len(self._choices)
        self._heard_at = self.tally.started
        self._fault: Exception | None = None
        self._is_gone = self._is_written = False

    @classmethod
    async def begin(cls, service: Service, ask: Ask, http: Request) -> Exchange:
        """Admit a request and hand it to its model.

        Errors: Failure where key or limits refuse it; those of Engine.add.
        """
        if ask.num_choices > MAX_CHOICES:
            raise Failure(f"{ask.num_choices} answers to one request; allowed are up to {MAX_CHOICES}", 400, "n")
        admission = service.admit(http, ask)
        try:
            stream = await ask.model.backend.submit(ask.prompts, ask.params)
        except BaseException:
            admission.cancel()
            raise
        return cls(service, ask, http, admission, stream)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's head tells of the key's limits."""
        return self._admission.headers

    def usage(self) -> dict[str, Any]:
        """The counts so far, and what they cost."""
        return self._service.usage(self._ask.model.name, self.tally)

    async def deltas(self) -> AsyncGenerator[list[Delta], None]:
        """What arrives; an empty list where nothing has for a while.

        Errors: Failure.
        """
        watch = asyncio.create_task(self._watch())
        self._service.live.add(self)
        try:
            while self._open:
                if self._fault is not None:
                    raise self._fault
                deltas = self._read(await self._stream.take())
                if not self._open:
                    self._stream.finish()
                    await self._write("answered", 200)
                if deltas or self._fault is None:
                    yield deltas
        except Exception as error:  # noqa: BLE001 - a request's border
            failure = failure_of(error)
            if not self._is_written:
                await (
                    self._write("cancelled", CLIENT_GONE) if self._is_gone else self._write("failed", failure.status)
                )
            raise failure from None
        finally:
            self._service.live.discard(self)
            watch.cancel()
            if self._open:
                self._stream.close()
                if not self._is_written:
                    self._service.spawn(self._write("cancelled", CLIENT_GONE))

    def tick(self, now: float) -> None:
        """Once a second: hand on what is held back, look at the deadline, or tell the client that it still waits."""
        is_late = now > self.tally.started + self._service.deadline
        if self._stream.is_holding or is_late or now > self._heard_at + KEEP_ALIVE_SECONDS:
            self._heard_at = now
            self._stream.nudge()

    def _read(self, arrived: list[tuple[int, Chunk | Exception | None]]) -> list[Delta]:
        if self.tally.seconds > self._service.deadline:
            raise Failure(f"no whole answer within {self._service.deadline:g} seconds; ask for fewer tokens", 504)
        answers = self._ask.params.n
        new: dict[int, list[Chunk]] = defaultdict(list)
        for prompt, item in arrived:
            if not isinstance(item, Chunk):
                # Told once what came before it is counted and given out.
                self._fault = stopped() if item is None else item
                break
            new[prompt * answers + item.index].append(item)
            if item.prompt is not None:
                self.prompts[prompt] = item.prompt
                self.tally.begin(item.prompt)
        deltas = []
        for index, chunks in new.items():
            delta = Delta(index)
            seconds, count = chunks[-1].compute_seconds, len(chunks)
            num_reasoning = self._choices[index].read(chunks, delta)
            self.tally.count(index // answers, count, num_reasoning, seconds)
            self._open -= delta.finish_reason is not None
            deltas.append(delta)
        if deltas:
            self._heard_at = time.monotonic()
        return deltas

    async def _write(self, outcome: Outcome, status: int) -> None:
        self._is_written = True
        await self._service.settle(self._ask, self._http, self._admission, self.tally, outcome, status)

    async def _watch(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._stream.close()
