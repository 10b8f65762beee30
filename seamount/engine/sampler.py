"""Drawing one token from logits."""

from __future__ import annotations

import secrets

import numpy as np
import torch

from seamount.engine.params import SamplingParams

_WORD = 2**64 - 1


class Sampler:
    """Draws the tokens of one answer.

    What is drawn is a function of the logits, the seed, the sample index and the position alone: neither the order of
    calls nor other requests change it. Adding Gumbel noise to log-probabilities and taking the largest draws from their
    distribution, so the filter decides which tokens compete and never shifts the noise of the others.
    """

    def __init__(self, params: SamplingParams, sample_index: int = 0) -> None:
        self._temperature = params.temperature
        self._top_p = params.top_p
        self._seed = secrets.randbits(64) if params.seed is None else params.seed & _WORD
        self._sample_index = sample_index

    def draw(self, logits_W: torch.Tensor, position: int) -> int:
        """The token at `position`, the number of tokens in front of it.

        Shapes: logits_W (W,) float32.
        Cost: one pass over W; below top_p = 1 also a sort.
        """
        if self._temperature == 0:
            return int(logits_W.argmax())
        # Shifted first: a tiny temperature must not turn the largest logit into infinity.
        scaled_W = (logits_W.double() - logits_W.max()) / self._temperature
        scores_W = torch.log_softmax(scaled_W, dim=-1)
        if self._top_p < 1:
            scores_W = keep_top_p(scores_W, self._top_p)
        noise_W = gumbel_noise(self._seed, self._sample_index, position, scores_W.numel())
        return int((scores_W + noise_W.to(scores_W.device)).argmax())


def keep_top_p(scores_W: torch.Tensor, top_p: float) -> torch.Tensor:
    """Log-probabilities with all but the fewest tokens that together hold `top_p` set to minus infinity.

    Of equally likely tokens the one with the lower id is kept first.
    """
    sorted_W, order_W = scores_W.sort(descending=True, stable=True)
    probability_W = sorted_W.exp()
    is_dropped_W = probability_W.cumsum(dim=-1) - probability_W >= top_p
    # The first always stays: what rounding leaves of the subtraction could exceed a tiny top_p.
    is_dropped_W[0] = False
    return scores_W.index_fill(0, order_W[is_dropped_W], -torch.inf)


def gumbel_noise(seed: int, sample_index: int, position: int, count: int) -> torch.Tensor:
    """Independent Gumbel noise for each token of the vocabulary, on the CPU.

    Philox is a function of key and counter, so each position has a stream of its own without any state kept.
    Shapes: (count,) float64.
    """
    generator = np.random.Philox(
        key=np.array([seed, sample_index], dtype=np.uint64), counter=np.array([0, 0, 0, position], dtype=np.uint64)
    )
    # 52 bits and a half: never 0 and never 1, both of which the logarithms would turn into infinity.
    uniform = ((generator.random_raw(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return torch.from_numpy(-np.log(-np.log(uniform)))
