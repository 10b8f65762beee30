"""Clients that ask at the same time, each its next request when the last is answered; no HTTP in between."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from seamount.benchmark.subject import Subject, spread
from seamount.benchmark.timed_steps import TimedSteps
from seamount.benchmark.workload import Answer, Workload, answer_all, random_prompt
from seamount.engine import SamplingParams


def serve(subject: Subject, workload: Workload, concurrency: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """One case for each number of clients, measured by turns in every round, after a short round that does not count.

    Errors: ContextOverflow if prompt and answer do not fit.
    """
    cases = [_Case(subject, workload, clients) for clients in concurrency]
    warm = replace(workload, prompt_tokens=min(8, workload.prompt_tokens), answer_tokens=min(8, workload.answer_tokens))
    for clients in concurrency:
        _Case(subject, warm, clients).run(-1)
    for number in range(rounds):
        for case in cases:
            case.run(number)
    return [case.summary() for case in cases]


def prefixes(subject: Subject, num_tokens: int, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Seconds to the first token of a new prompt, and of the same prompt with another last token.

    The prompt is as long as the context allows if that is less; one round warms up.
    """
    num_tokens = min(num_tokens, subject.model.spec.context_length - 1)
    source, params = random.Random(f"{seed}/prefix"), SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
    seconds: tuple[list[float], list[float]] = [], []
    found = 0
    for _ in range(rounds + 1):
        prompt = random_prompt(source, num_tokens, subject.vocab_size)
        for place in range(2):
            before = subject.engine.metrics.hit_tokens
            [answer] = answer_all(subject.engine, [prompt], params)
            seconds[place].append(answer.first_token_seconds)
            found = subject.engine.metrics.hit_tokens - before
            prompt[-1] = (prompt[-1] + 1) % subject.vocab_size
    miss, hit = (median(each[1:]) for each in seconds)
    return {"tokens": num_tokens, "found_tokens": found, "miss_seconds": miss, "hit_seconds": hit, "ratio": hit / miss}


class _Case:
    """All rounds with one number of clients."""

    def __init__(self, subject: Subject, workload: Workload, clients: int) -> None:
        self._subject, self._workload, self._clients = subject, workload, clients
        self._steps = TimedSteps(subject.engine)
        self._answers: list[Answer] = []
        self._rates: list[float] = []
        self._seconds = 0.0

    def run(self, number: int) -> None:
        engine = self._subject.engine
        waiting = deque(self._workload.asked(self._clients, number, self._subject.vocab_size))
        open_answers: list[Answer] = []
        done: list[Answer] = []
        started = time.perf_counter()
        while waiting or open_answers:
            while waiting and len(open_answers) < self._clients:
                open_answers.append(Answer(engine, *waiting.popleft()))
            self._steps.run()
            done += [answer for answer in open_answers if answer.is_done]
            open_answers = [answer for answer in open_answers if not answer.is_done]
        seconds = time.perf_counter() - started
        for answer in done:
            answer.check()
        self._answers += done
        self._rates.append(sum(len(answer.tokens) for answer in done) / seconds)
        self._seconds += seconds

    def summary(self) -> dict[str, Any]:
        firsts = [answer.first_token_seconds for answer in self._answers]
        gaps = [gap for answer in self._answers for gap in answer.gaps]
        return {
            "concurrency": self._clients,
            "requests": len(self._answers),
            **spread(self._rates),
            "first_token_seconds": _percentiles(firsts),
            "between_tokens_seconds": _percentiles(gaps),
            **self._steps.summary(),
            "share": self._least_seconds / self._seconds,
        }

    @property
    def _least_seconds(self) -> float:
        """The time that this machine's limits allow for the same steps."""
        subject = self._subject
        steps = sum(subject.work.step_seconds(one.num_tokens, subject.limits) for one in self._steps.steps)
        # Each token but the first attends to the rows of all before it, of which a step reads each once.
        rows = sum(
            answer.num_prompt_tokens + place for answer in self._answers for place in range(1, len(answer.tokens))
        )
        return steps + rows * subject.work.row_bytes / subject.limits.read


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """The middle, and what one in a hundred exceeds; None for nothing, as between the tokens of one-token answers."""
    if not seconds:
        return None
    middle, high = np.percentile(seconds, [50, 99]).tolist()
    return {"p50": middle, "p99": high}
