"""Decoding and prompts under the engine and in the model's bare loop, by turns, on the same tokens."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import torch

from seamount.benchmark.subject import Subject, spread
from seamount.benchmark.timed_steps import TimedSteps
from seamount.benchmark.workload import Answer, answer_all, random_prompt
from seamount.engine import SamplingParams
from seamount.errors import ConfigError
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import new_caches


def decode(
    subject: Subject, streams: int, context: int, steps: int, rounds: int, temperature: float = 0.0
) -> dict[str, Any]:
    """Tokens per second of so many streams in sum, each behind `context` tokens; one round warms up.

    The bare loop is fed what the engine drew, so that both read the same weights, experts included; `same_tokens` says
    whether it chose the same, where the likeliest are drawn.
    Errors: ContextOverflow if a stream does not fit; ConfigError if they do not fit into memory together.
    """
    source, count = random.Random(f"{streams}/{context}"), steps * (rounds + 1) + 1
    prompts = [random_prompt(source, context, subject.vocab_size) for _ in range(streams)]
    answers = _begun(subject, prompts, SamplingParams(count, temperature, seed=0, ignore_eos=True))
    loop = _BareLoop(subject, streams, context + count)
    for number, prompt in enumerate(prompts):
        loop.prefill(number, prompt)
    timed, rates, bare_rates, is_same = TimedSteps(subject.engine), [], [], True
    for first in range(0, count - 1, steps):
        started = time.perf_counter()
        for _ in range(steps):
            timed.run()
        rates.append(streams * steps / (time.perf_counter() - started))
        fed = [[answer.tokens[place] for answer in answers] for place in range(first, first + steps + 1)]
        started = time.perf_counter()
        chosen = [loop.step(tokens) for tokens in fed[:-1]]
        bare_rates.append(streams * steps / (time.perf_counter() - started))
        is_same = is_same and chosen == fed[1:]
    for answer in answers:
        answer.check()
    found = _beside(rates, bare_rates)
    rows = streams * (context + count / 2) * subject.work.row_bytes
    used = found["tokens_per_second"] / streams * (subject.work.weight_bytes(streams) + rows)
    found |= {"bytes_per_second": used, "share": used / subject.limits.read}
    found |= {"same_tokens": None if temperature else is_same}
    return {"streams": streams, "context": context} | found | timed.summary()


def prefill(subject: Subject, num_tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens per second of one new prompt at a time, up to its first token; one round warms up.

    Errors: ContextOverflow if the prompt does not fit.
    """
    source, params = random.Random(num_tokens), SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
    rates, bare_rates, is_same = [], [], True
    for _ in range(rounds + 1):
        prompt = random_prompt(source, num_tokens, subject.vocab_size)
        [answer] = answer_all(subject.engine, [prompt], params)
        rates.append(num_tokens / answer.first_token_seconds)
        loop = _BareLoop(subject, 1, num_tokens)
        started = time.perf_counter()
        token = loop.prefill(0, prompt)
        bare_rates.append(num_tokens / (time.perf_counter() - started))
        is_same = is_same and answer.tokens == [token]
    found = _beside(rates, bare_rates)
    used = found["tokens_per_second"] * subject.work.token_operations
    found |= {"operations_per_second": used, "share": used / subject.work.operations_limit(subject.limits)}
    return {"tokens": num_tokens, "same_tokens": is_same} | found


class _BareLoop:
    """Some sequences that go through `Model.logits_at` together, each with room for `capacity` tokens."""

    def __init__(self, subject: Subject, sequences: int, capacity: int) -> None:
        self._model, self._vocab_size = subject.model, subject.vocab_size
        self._chunk = subject.engine.config.step_tokens
        self._caches = new_caches(self._model.page_layout, [capacity] * sequences, self._model.device)

    def prefill(self, sequence: int, prompt: Sequence[int]) -> int:
        """Run a prompt, in chunks as the engine's; its next token."""
        token = 0
        for start in range(0, len(prompt), self._chunk):
            chunk = prompt[start : start + self._chunk]
            [token] = self._run(chunk, [sequence], [len(chunk)], [len(chunk) - 1])
        return token

    def step(self, tokens: Sequence[int]) -> list[int]:
        """Run one token of every sequence; the next ones."""
        every = range(len(tokens))
        return self._run(tokens, every, [1] * len(tokens), every)

    @torch.inference_mode()
    def _run(
        self, tokens: Sequence[int], sequences: Sequence[int], lengths: Sequence[int], wanted: Sequence[int]
    ) -> list[int]:
        batch = Batch.of(lengths, [self._caches[sequence] for sequence in sequences], self._model.device)
        logits_nW = self._model.logits_at(torch.tensor(tokens, device=self._model.device), batch, wanted)
        chosen: list[int] = logits_nW[:, : self._vocab_size].argmax(-1).tolist()
        return chosen


def _begun(subject: Subject, prompts: list[list[int]], params: SamplingParams) -> list[Answer]:
    """Answers that have one token each."""
    # Once their rows are known, all prompts go through one step together, and all streams begin at once.
    answer_all(subject.engine, prompts, SamplingParams(max_tokens=1, ignore_eos=True))
    answers = [Answer(subject.engine, prompt, params) for prompt in prompts]
    subject.engine.step()
    if not all(answer.arrivals for answer in answers):
        subject.engine.stop()
        raise ConfigError(
            f"memory = {subject.engine.config.memory_bytes} bytes is too little for {len(prompts)} streams that begin "
            "together; give more, or fewer streams"
        )
    return answers


def _beside(rates: Sequence[float], bare_rates: Sequence[float]) -> dict[str, Any]:
    """The engine's rates and the bare loop's, without the first round's."""
    engine, bare = spread(rates[1:]), spread(bare_rates[1:])
    return engine | {"bare": bare, "ratio": engine["tokens_per_second"] / bare["tokens_per_second"]}
