"""Random requests, run all together with arrivals and aborts, and one by one for comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from seamount.engine import Chunk, Engine, Grammar, SamplingParams
from seamount.engine.generation import Generation

Signature = tuple[tuple[Any, ...], ...]
Answer = tuple[Signature, tuple[Any, ...]]
"""All that a request's chunks say, and the scores of its prompt."""


@dataclass(frozen=True)
class Ask:
    """A request of a workload: when it comes, and when it is aborted, in steps."""

    prompt: tuple[int, ...]
    params: SamplingParams
    at: int
    abort_at: int | None


def prompts(num_tokens: int, longest: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Beginnings of a few texts, with ends of their own: so that prefixes are shared at every place."""

    def make(parts: tuple[int, int, list[int]]) -> tuple[int, ...]:
        text, size, end = parts
        return tuple((text * 7 + i * (text + 3)) % num_tokens for i in range(size)) + tuple(end)

    ends = st.lists(st.integers(0, num_tokens - 1), min_size=1, max_size=5)
    return st.tuples(st.integers(0, 2), st.integers(0, longest), ends).map(make)


def asks(num_tokens: int, longest: int, most_tokens: int = 40) -> st.SearchStrategy[list[Ask]]:
    """Workloads of up to eight requests."""
    params = st.builds(
        SamplingParams,
        max_tokens=st.integers(1, most_tokens),
        temperature=st.sampled_from([0.0, 0.7, 1.0]),
        top_p=st.sampled_from([1.0, 0.8]),
        seed=st.integers(0, 3),
        n=st.sampled_from([1, 1, 1, 2, 3]),
        logprobs=st.sampled_from([None, 0, 2]),
        prompt_logprobs=st.sampled_from([None, None, None, 1]),
        frequency_penalty=st.sampled_from([0.0, 0.5]),
        grammar=st.sampled_from([None, None, None, Grammar.choice(["abc", "ab cab", "b cbc" * 4])]),
    )
    one = st.builds(Ask, prompts(num_tokens, longest), params, st.integers(0, 30), st.none() | st.integers(1, 60))
    return st.lists(one, min_size=1, max_size=8)


def signature(chunks: Sequence[Chunk], n: int) -> Signature:
    """All that a request's chunks say, answer by answer."""
    return tuple(
        tuple((c.text, c.token_id, c.finish_reason, c.logprob) for c in chunks if c.index == index)
        for index in range(n)
    )


def alone(engine: Engine, ask: Ask) -> Answer:
    """What a request gets from an engine that does nothing else."""
    with engine.stream(ask.prompt, ask.params) as generation:
        return _answer(generation, ask)


def together(engine: Engine, workload: Sequence[Ask], after_step: Callable[[], None]) -> list[Answer | None]:
    """What each request gets in the workload; None for those that were aborted in time."""
    streams: dict[int, Generation] = {}
    step = 0
    while len(streams) < len(workload) or engine.has_work:
        for number, ask in enumerate(workload):
            if number not in streams and ask.at <= step:
                streams[number] = engine.stream(ask.prompt, ask.params)
            elif number in streams and ask.abort_at is not None and ask.at + ask.abort_at == step:
                streams[number].close()
                held = {sequence.request.id for sequence in engine._scheduler.running}
                assert streams[number]._request.id not in held | set(engine._requests)
                after_step()
        engine.step()
        after_step()
        step += 1
        assert step < 5000, "the workload does not end"
    return [_answer(streams[number], ask) for number, ask in enumerate(workload)]


def _answer(generation: Generation, ask: Ask) -> Any:
    chunks = list(generation)
    is_whole = sum(chunk.finish_reason is not None for chunk in chunks) == ask.params.n
    assert is_whole or ask.abort_at is not None, "neither answered nor aborted"
    return (signature(chunks, ask.params.n), tuple(generation.prompt_logprobs)) if is_whole else None
