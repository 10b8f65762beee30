"""Deterministic requests of random tokens, and when their answers' tokens came."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from seamount.engine import Chunk, Engine, SamplingParams


@dataclass(frozen=True)
class Workload:
    """What clients ask: each so many requests, one after the other.

    Prompts and answers are up to a quarter shorter than the longest.
    """

    prompt_tokens: int = 128
    answer_tokens: int = 64
    requests: int = 2
    temperature: float = 1.0
    seed: int = 0

    def asked(self, clients: int, round_number: int, vocab_size: int) -> list[tuple[list[int], SamplingParams]]:
        """All requests of so many clients in one round; no two rounds have a prompt in common."""
        source = random.Random(f"{self.seed}/{clients}/{round_number}")
        each = []
        for _ in range(clients * self.requests):
            prompt = random_prompt(source, _shortened(source, self.prompt_tokens), vocab_size)
            params = SamplingParams(
                max_tokens=_shortened(source, self.answer_tokens),
                temperature=self.temperature,
                seed=source.getrandbits(32),
                ignore_eos=True,
            )
            each.append((prompt, params))
        return each


class Answer:
    """Adds a request, takes its chunks as they come, and notes when they do."""

    def __init__(self, engine: Engine, prompt: Sequence[int], params: SamplingParams) -> None:
        self.num_prompt_tokens = len(prompt)
        self.arrivals: list[float] = []
        self.tokens: list[int] = []
        self.is_done = False
        self._error: Exception | None = None
        self._added_at = time.perf_counter()
        engine.add(prompt, params, self._take)

    def _take(self, item: Chunk | Exception | None) -> None:
        if isinstance(item, Chunk):
            self.arrivals.append(time.perf_counter())
            self.tokens.append(item.token_id)
        elif item is not None:
            self._error = item
        self.is_done = not isinstance(item, Chunk) or item.finish_reason is not None

    def check(self) -> None:
        """Raise what went wrong in the engine."""
        if self._error is not None:
            raise self._error

    @property
    def first_token_seconds(self) -> float:
        """From the request to its first token, waiting included."""
        return self.arrivals[0] - self._added_at

    @property
    def gaps(self) -> list[float]:
        """Seconds between one token and the next."""
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)]


def random_prompt(source: random.Random, num_tokens: int, vocab_size: int) -> list[int]:
    """Tokens without meaning."""
    return [source.randrange(vocab_size) for _ in range(num_tokens)]


def answer_all(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Answer]:
    """The answers to some prompts that are asked at once."""
    answers = [Answer(engine, prompt, params) for prompt in prompts]
    while engine.has_work:
        engine.step()
    for answer in answers:
        answer.check()
    return answers


def _shortened(source: random.Random, longest: int) -> int:
    return source.randint(max(1, longest * 3 // 4), longest)
