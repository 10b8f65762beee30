"""Answers prompts with a model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from seamount.engine.generation import Generation, LanguageModel, Request
from seamount.engine.params import SamplingParams
from seamount.engine.results import Completion, Timing
from seamount.engine.turns import Turns
from seamount.errors import ContextOverflow, RequestError, TokenizerError
from seamount.tokenizer import Tokenizer


class Engine:
    """Answers prompts with one model, one request after the other, whichever threads they come from.

    Errors: TokenizerError if the model has no tokenizer.
    """

    def __init__(self, model: LanguageModel) -> None:
        if model.tokenizer is None:
            raise TokenizerError("the model has no tokenizer, so no text can be made; load one that has")
        self._model = model
        self._turns = Turns()
        self.tokenizer: Tokenizer = model.tokenizer

    def stream(self, prompt_tokens: Sequence[int], params: SamplingParams | None = None) -> Generation:
        """The answer to one prompt, token by token; closing the iterator stops the work.

        Errors: RequestError for an empty prompt or token ids outside the vocabulary, ContextOverflow if prompt and
        answer do not fit; both at once, before the first chunk.
        """
        return self._generation(prompt_tokens, params or SamplingParams(), sample_index=0)

    def generate(
        self, prompts: Sequence[str] | Sequence[Sequence[int]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """The answers to some prompts, texts or token ids, in their order.

        A prompt that comes several times gets as many different samples, also with a seed; a prompt's answer does not
        depend on the other prompts.

        Errors: as for stream, before any prompt is answered.
        """
        if isinstance(prompts, str):
            raise RequestError(f"prompts = {prompts[:40]!r}; allowed is a list of prompts: put the text into a list")
        params = params or SamplingParams()
        earlier: Counter[tuple[int, ...]] = Counter()
        generations = []
        for prompt in prompts:
            tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            key = tuple(tokens)
            generations.append((self._generation(tokens, params, sample_index=earlier[key]), len(key)))
            earlier[key] += 1
        return [_complete(generation, prompt_count) for generation, prompt_count in generations]

    def stop(self) -> None:
        """Ends all streams that work or wait now, from any thread; they give no further chunk."""
        self._turns.cancel_all()

    def _generation(self, prompt_tokens: Sequence[int], params: SamplingParams, sample_index: int) -> Generation:
        prompt = list(prompt_tokens)
        self._require_vocabulary(prompt)
        room = self._model.spec.context_length - len(prompt)
        if room < (params.max_tokens or 1):
            raise ContextOverflow(
                f"the prompt has {len(prompt)} tokens and the answer may have {params.max_tokens or 'at least 1'}, "
                f"but the model's context holds {self._model.spec.context_length}; "
                "shorten the prompt or lower max_tokens"
            )
        request = Request(prompt, params, params.max_tokens or room, sample_index)
        return Generation(self._model, self.tokenizer, request, self._turns)

    def _require_vocabulary(self, prompt: list[int]) -> None:
        if not prompt:
            raise RequestError("the prompt has 0 tokens; at least 1 is needed")
        size = self._model.spec.vocab_size
        for token_id in prompt:
            if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < size:
                raise RequestError(f"prompt token id {token_id!r}; allowed are the integers from 0 to {size - 1}")


def _complete(generation: Generation, prompt_count: int) -> Completion:
    started_at = time.perf_counter()
    first_token_seconds, chunks = None, []
    with generation:
        for chunk in generation:
            if first_token_seconds is None:
                first_token_seconds = time.perf_counter() - started_at
            chunks.append(chunk)
    finish_reason = chunks[-1].finish_reason if chunks else None
    assert finish_reason is not None, "an answer without an end"
    assert first_token_seconds is not None, "an answer without a beginning"
    return Completion(
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(chunk.token_id for chunk in chunks),
        finish_reason=finish_reason,
        prompt_tokens=prompt_count,
        timing=Timing(first_token_seconds, time.perf_counter() - started_at),
    )
