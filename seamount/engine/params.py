"""How an answer is drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from seamount.engine.grammar import Grammar
from seamount.errors import RequestError

MAX_STOP_STRINGS = 16
"""Each is searched for after each token."""
MAX_SAMPLES = 128
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is drawn, and when it ends.

    In this order: repetition_penalty, presence_penalty with frequency_penalty, and logit_bias change the logits; tokens
    that may not come (ends before min_tokens, what a grammar excludes) are forbidden; the temperature divides; top_k,
    then top_p, then min_p filter; one of those left is drawn. Reported log-probabilities are of the logits before all
    this, so that no option changes them.

    Errors: RequestError that names the field, its value and what is allowed.
    """

    max_tokens: int | None = None
    """The most tokens of an answer, the one that ends it included; None: as many as the context holds."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = 1.0
    """Draws from the fewest tokens that hold this share of the probability that top_k left."""
    seed: int | None = None
    """Equal seeds draw equal answers; None: another one for each answer."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""
    n: int = 1
    """Answers to each prompt."""
    min_tokens: int = 0
    """The answer's first so many tokens do not end it, unless a grammar allows nothing else; stop texts still do."""
    top_k: int = 0
    """Draws from so many of the most likely tokens; 0 or -1: from all."""
    min_p: float = 0.0
    """Draws from tokens at least this share as likely as the most likely one."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of each token that the answer has already."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit as many times as the answer has it already."""
    repetition_penalty: float = 1.0
    """Divides the positive logits, and multiplies the others, of the tokens that prompt or answer have already."""
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Added to the logits of these tokens; -100 makes one unlikely and does not forbid it."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer beside the model's own."""
    ignore_eos: bool = False
    """Whether the model's own end tokens do not end the answer."""
    logprobs: int | None = None
    """Reports each token's log-probability, and so many of the most likely ones at its place; None: neither."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens, from the second one on."""
    grammar: Grammar | None = None
    """What the answer must match."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            self._require_integer("max_tokens", 1)
        self._require("temperature", _is_number(self.temperature) and self.temperature >= 0, "0 (greedy) or more")
        self._require("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1")
        if self.seed is not None:
            self._require("seed", _is_integer(self.seed) and -(2**63) <= self.seed < 2**63, "a 64-bit integer")
        is_texts = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        self._require("stop", is_texts, "a tuple of texts, none of them empty")
        self._require("stop", len(self.stop) <= MAX_STOP_STRINGS, f"up to {MAX_STOP_STRINGS} texts")
        self._require_integer("n", 1, MAX_SAMPLES)
        self._require_integer("min_tokens", 0)
        is_reachable = self.max_tokens is None or self.min_tokens <= self.max_tokens
        self._require("min_tokens", is_reachable, f"at most max_tokens, {self.max_tokens}")
        self._require_integer("top_k", -1, 2**31 - 1)
        self._require("min_p", _is_number(self.min_p) and 0 <= self.min_p <= 1, "from 0 to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            self._require(name, _is_number(getattr(self, name)) and abs(getattr(self, name)) <= 2, "from -2 to 2")
        is_positive = _is_number(self.repetition_penalty) and self.repetition_penalty > 0
        self._require("repetition_penalty", is_positive, "above 0")
        is_bias = isinstance(self.logit_bias, Mapping) and all(
            _is_token(token) and _is_number(bias) and abs(bias) <= 100 for token, bias in self.logit_bias.items()
        )
        self._require("logit_bias", is_bias, "a mapping of token ids to numbers from -100 to 100")
        is_tokens = isinstance(self.stop_token_ids, tuple) and all(map(_is_token, self.stop_token_ids))
        self._require("stop_token_ids", is_tokens, "a tuple of token ids")
        self._require("ignore_eos", isinstance(self.ignore_eos, bool), "True or False")
        self._require("grammar", self.grammar is None or isinstance(self.grammar, Grammar), "a Grammar")
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._require_integer(name, 0, MAX_LOGPROBS)

    def require_vocabulary(self, vocab_size: int) -> None:
        """Whether the tokens named here are the tokenizer's. Errors: RequestError."""
        for name in ("logit_bias", "stop_token_ids"):
            if any(token >= vocab_size for token in getattr(self, name)):
                self._require(name, False, f"token ids from 0 to {vocab_size - 1}")

    def _require(self, name: str, is_allowed: bool, what_is_allowed: str) -> None:
        if not is_allowed:
            raise RequestError(f"{name} = {getattr(self, name)!r}; allowed is {what_is_allowed}")

    def _require_integer(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        is_allowed = _is_integer(value) and least <= value and (most is None or value <= most)
        self._require(name, is_allowed, f"{least} or more" if most is None else f"an integer from {least} to {most}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    # Not by math.isfinite, which fails for integers that are too large for a float.
    number: Any = value
    return bool(-sys.float_info.max <= number <= sys.float_info.max)
