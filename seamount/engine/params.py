"""How an answer is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from seamount.errors import RequestError

MAX_STOP_STRINGS = 16
"""Each is searched for after each token."""


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is drawn, and when it ends.

    Errors: RequestError that names the field, its value and what is allowed.
    """

    max_tokens: int | None = None
    """The most tokens of an answer, the one that ends it included; None: as many as the context holds."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = 1.0
    """Draws from the fewest tokens that hold this share of the probability."""
    seed: int | None = None
    """Equal seeds draw equal answers; None: another one for each request."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and are not part of it."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _require(_is_integer(self.max_tokens) and self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 or more")
        _require(
            _is_number(self.temperature) and self.temperature >= 0,
            "temperature",
            self.temperature,
            "0 (greedy) or more",
        )
        _require(_is_number(self.top_p) and 0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        if self.seed is not None:
            _require(_is_integer(self.seed) and -(2**63) <= self.seed < 2**63, "seed", self.seed, "a 64-bit integer")
        _require(
            isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop),
            "stop",
            self.stop,
            "a tuple of texts, none of them empty",
        )
        _require(len(self.stop) <= MAX_STOP_STRINGS, "stop", f"{len(self.stop)} texts", f"up to {MAX_STOP_STRINGS}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _require(allowed: bool, field: str, value: object, what_is_allowed: str) -> None:
    if not allowed:
        raise RequestError(f"{field} = {value!r}; allowed is {what_is_allowed}")
