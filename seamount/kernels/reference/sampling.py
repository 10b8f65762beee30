"""Drawing a token: what the compiled kernel must give, in float64 and one row at a time.

Source: Gumbel-max, Maddison and others, arXiv 1411.0030; Philox, Salmon and others, SC 2011; nucleus (top-p),
arXiv 1904.09751; min-p, arXiv 2407.01082.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

_LOW_HALF, _SHIFT = np.uint64(2**32 - 1), np.uint64(32)


class Draw(NamedTuple):
    """How one row's token is drawn."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the largest, of equal ones the one with the lowest id."""
    top_k: int = 0
    """Only so many of the likeliest compete; 0 or less: all. Of equally likely ones the lower ids."""
    top_p: float = 1.0
    """Then only the fewest of the likeliest that hold this share of what top_k left, at least one."""
    min_p: float = 0.0
    """Then only those that are this share as likely as the likeliest."""
    seed: int = 0
    """64 bits, unsigned. With sample_index, position and the token's id, all that the noise depends on."""
    sample_index: int = 0
    """32 bits, unsigned."""
    position: int = 0
    """32 bits, unsigned."""
    edits: tuple[np.ndarray, np.ndarray] | None = None
    """Tokens (int64) and the logits (float32) to put in their places, in this order; minus infinity forbids."""
    mask: np.ndarray | None = None
    """Bit i % 32 of word i // 32 (32-bit integers) says whether token i is allowed; no edit allows it again."""


def draw_tokens(logits_nW: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Each row's token: the largest sum of a kept logit, divided by the temperature, and its Gumbel noise.

    -1 where nothing is allowed, -2 where a logit is not a number or the largest is infinite.
    Shapes: logits_nW (n, W) float32; they are not modified.
    """
    return [_draw(logits_W.numpy().copy(), draw) for logits_W, draw in zip(logits_nW.cpu(), draws, strict=True)]


def top_tokens(values_nW: Tensor, count: int) -> Tensor:
    """The ids of each row's largest numbers, largest first, of equal ones the lower id: (n, count) int64."""
    return values_nW.argsort(dim=-1, descending=True, stable=True)[:, :count]


def _draw(logits_W: np.ndarray, draw: Draw) -> int:
    if np.isnan(logits_W).any():
        return -2
    if draw.mask is not None:
        is_allowed_W = np.unpackbits(draw.mask.view(np.uint8), bitorder="little")[: len(logits_W)] != 0
        logits_W[~is_allowed_W] = -np.inf
    for token, value in zip(*draw.edits, strict=True) if draw.edits else ():
        if logits_W[token] > -np.inf:
            logits_W[token] = value
    most = float(logits_W.max())
    if abs(most) == np.inf:
        return -1 if most < 0 else -2
    if draw.temperature == 0:
        return int(logits_W.argmax())
    scores_W = (logits_W.astype(np.float64) - most) / draw.temperature
    order = np.argsort(-logits_W, kind="stable")[: draw.top_k if draw.top_k > 0 else None]
    share = np.exp(scores_W[order])
    is_kept = np.cumsum(share) - share < draw.top_p * share.sum() if draw.top_p < 1 else np.ones(len(order), bool)
    if draw.min_p > 0:
        is_kept &= logits_W[order] >= most + draw.temperature * np.log(draw.min_p)
    is_kept[0] = True
    kept = np.sort(order[is_kept])
    return int(kept[np.argmax(scores_W[kept] + gumbel(kept, draw.seed, draw.sample_index, draw.position))])


def gumbel(tokens: np.ndarray, seed: int, sample_index: int, position: int) -> np.ndarray:
    """Each token's Gumbel noise, `-log(-log(1 - u))`, where u has 52 random bits and a half: never 0, never 1.

    Token 64 b + 16 j + l has word j of the counter (16 b + l, position, sample_index, half): of half 0 the upper 32
    bits, of half 1 those that follow.
    """
    tokens = tokens.astype(np.uint64)
    block, word = tokens // np.uint64(64) * np.uint64(16) + tokens % np.uint64(16), tokens // np.uint64(16) % 4
    zeros = np.zeros_like(block)
    upper, lower = (
        philox([block, zeros + np.uint64(position), zeros + np.uint64(sample_index), zeros + np.uint64(half)], seed)
        for half in (0, 1)
    )
    columns = np.arange(len(tokens))
    bits = (upper[word, columns] << np.uint64(20)) | (lower[word, columns] >> np.uint64(12))
    return -np.log(-np.log1p(-(bits.astype(np.float64) + 0.5) * 2.0**-52))


def philox(counter: list[np.ndarray], key: int) -> np.ndarray:
    """Philox4x32-10: four words of 32 random bits for each counter of four such words (uint64 arrays), key 64 bits."""
    a, b, c, d = counter
    for turn in range(10):
        keys = [
            np.uint64((half + turn * step) % 2**32) for half, step in zip((key, key >> 32), _KEY_STEPS, strict=True)
        ]
        from_a, from_c = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = (from_c >> _SHIFT) ^ b ^ keys[0], from_c & _LOW_HALF
        c, d = (from_a >> _SHIFT) ^ d ^ keys[1], from_a & _LOW_HALF
    return np.stack([a, b, c, d])


_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
