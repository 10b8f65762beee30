"""One request at work."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from seamount.engine.params import SamplingParams
from seamount.engine.results import Chunk
from seamount.engine.sampler import Sampler
from seamount.engine.stop_strings import StopStrings
from seamount.engine.turns import Ticket, Turns
from seamount.tokenizer import Tokenizer

PREFILL_CHUNK = 512
"""Tokens of the prompt that go through the model at once; between two chunks a request can be stopped."""


class LanguageModel(Protocol):
    """What the engine needs of a model."""

    @property
    def spec(self) -> Any:
        """The shape: `vocab_size` and `context_length` are read."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the checkpoint has none."""

    def new_cache(self, capacity: int) -> Any:
        """An empty cache for one sequence."""

    def step(self, tokens: list[int], cache: Any) -> torch.Tensor:
        """Logits after the last of the next tokens: (W), float32."""


@dataclass(frozen=True)
class Request:
    """A request that was found answerable."""

    prompt_tokens: list[int]
    params: SamplingParams
    max_tokens: int
    sample_index: int


class Generation(Iterator[Chunk]):
    """The chunks of one answer, each computed when it is asked for.

    It holds the engine from the first chunk until the last or until it is closed. `close` may be called from any
    thread, also while another waits for a chunk: that one then gets the end of the iteration.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, request: Request, turns: Turns) -> None:
        self._turns = turns
        self._ticket = Ticket()
        self._running = threading.Lock()
        # The steps know nothing of this object, so that one which is dropped unfinished gives its turn back at once.
        self._steps = _steps(model, tokenizer, request, turns, self._ticket)

    def __next__(self) -> Chunk:
        try:
            with self._running:
                chunk = next(self._steps)
        finally:
            # A close during the step could not end the steps itself.
            if self._ticket.is_cancelled:
                self.close()
        if self._ticket.is_cancelled:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stops the work and lets the next request in."""
        self._turns.cancel(self._ticket)
        if self._running.acquire(blocking=False):
            try:
                self._steps.close()
            finally:
                self._running.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Answer:
    """The text of the tokens so far, cut at a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._detokenizer = tokenizer.stream()
        self._stops = StopStrings(stops)

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_hit

    def push(self, token_id: int) -> str:
        return self._stops.push(self._detokenizer.push(token_id))

    def finish(self) -> str:
        text = self._stops.push(self._detokenizer.finish())
        return text + self._stops.finish()


def _steps(
    model: LanguageModel, tokenizer: Tokenizer, request: Request, turns: Turns, ticket: Ticket
) -> Generator[Chunk, None, None]:
    if not turns.wait(ticket):
        return
    try:
        yield from _answer(model, tokenizer, request, ticket)
    finally:
        turns.done(ticket)


def _answer(model: LanguageModel, tokenizer: Tokenizer, request: Request, ticket: Ticket) -> Iterator[Chunk]:
    prompt = request.prompt_tokens
    # The last token of an answer is never fed back, so it needs no row.
    cache = model.new_cache(len(prompt) + request.max_tokens - 1)
    sampler = Sampler(request.params, request.sample_index)
    answer = _Answer(tokenizer, request.params.stop)
    for start in range(0, len(prompt), PREFILL_CHUNK):
        if ticket.is_cancelled:
            return
        logits_W = _step(model, prompt[start : start + PREFILL_CHUNK], cache)
    for count in range(1, request.max_tokens + 1):
        # Some models have more rows than their tokenizer has tokens; those rows are padding.
        token_id = sampler.draw(logits_W[: tokenizer.vocab_size], len(prompt) + count - 1)
        if token_id in tokenizer.eos_token_ids:
            yield Chunk(answer.finish(), token_id, "stop")
            return
        text = answer.push(token_id)
        if not answer.is_stopped and count == request.max_tokens:
            text += answer.finish()
            yield Chunk(text, token_id, "stop" if answer.is_stopped else "length")
            return
        yield Chunk(text, token_id, "stop" if answer.is_stopped else None)
        if answer.is_stopped or ticket.is_cancelled:
            return
        logits_W = _step(model, [token_id], cache)


def _step(model: LanguageModel, tokens: list[int], cache: Any) -> torch.Tensor:
    # Entered for each step: a generator that is suspended inside would leave its caller in inference mode.
    with torch.inference_mode():
        logits_W = model.step(tokens, cache)
    assert not bool(logits_W.isnan().any()), "the model gave logits that are not numbers"
    return logits_W
