"""Perplexity of a model on a text, in overlapping windows."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seamount.errors import ConfigError
from seamount.tokenizer import Tokenizer

_ROWS = 64  # logits turned to float64 at a time, so that a large vocabulary costs megabytes


class LanguageModel(Protocol):
    """What is needed of a model."""

    tokenizer: Tokenizer | None

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Logits of every next token: (B, T) -> (B, T, W)."""


@dataclass(frozen=True)
class Perplexity:
    """How well a model foresees a text.

    Units: nats per predicted token; bits per UTF-8 byte of the predicted text, which compares tokenizers fairly.
    """

    tokens: int
    bytes: int
    nats_per_token: float
    perplexity: float
    bits_per_byte: float


def perplexity(model: LanguageModel, text: str, *, window: int = 512, max_tokens: int | None = None) -> Perplexity:
    """Perplexity on the first `max_tokens` tokens of a text.

    Each window overlaps its predecessor by half and scores only what that one did not, so every scored token but those
    of the first window has at least half a window of context. The first token is scored only if the tokenizer puts a
    beginning-of-sequence token in front of it.

    Errors: ConfigError if the model has no tokenizer, the window is below 2 or fewer than two tokens are left.
    """
    if model.tokenizer is None:
        raise ConfigError("the model has no tokenizer, and a text is measured in tokens; add tokenizer.json to it")
    if window < 2:
        raise ConfigError(f"window = {window}: a window needs at least 2 tokens, one to predict and one before it")
    token_ids = model.tokenizer.encode(text)[:max_tokens]
    if len(token_ids) < 2:
        raise ConfigError(f"the text has {len(token_ids)} token, and at least 2 are needed")
    nats = sum_nats(model, torch.tensor(token_ids), window)
    predicted = len(token_ids) - 1
    predicted_bytes = len(model.tokenizer.decode(token_ids[1:], skip_control_tokens=False).encode())
    return Perplexity(
        tokens=predicted,
        bytes=predicted_bytes,
        nats_per_token=nats / predicted,
        perplexity=math.exp(min(nats / predicted, 700.0)),
        bits_per_byte=nats / math.log(2) / predicted_bytes,
    )


def sum_nats(model: LanguageModel, tokens_T: Tensor, window: int) -> float:
    """Minus the sum of all log-probabilities of the tokens but the first, summed in float64."""
    nats, scored = 0.0, 1
    while scored < len(tokens_T):
        start = 0 if scored == 1 else scored - window // 2
        end = min(start + window, len(tokens_T))
        with torch.inference_mode():
            logits_TW = model.logits(tokens_T[None, start : end - 1])[0, scored - 1 - start :]
        targets_T = tokens_T[scored:end].to(logits_TW.device)
        for rows_TW, row_targets_T in zip(logits_TW.split(_ROWS), targets_T.split(_ROWS), strict=True):
            # "sum" in float64: a long text's float32 sum would lose the digits that tell two models apart.
            nats += float(torch.nn.functional.cross_entropy(rows_TW.double(), row_targets_T, reduction="sum"))
        scored = end
    return nats
