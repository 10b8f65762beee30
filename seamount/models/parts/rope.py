"""Rotary frequencies: the plain ones, and the three ways in which the family stretches them to longer contexts."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor (DeepSeek-Coder)."""

    factor: float


@dataclass(frozen=True)
class YarnScaling:
    """Slow channels stretched, fast ones kept, a ramp between (V2, V3). Source: YaRN, arXiv 2309.00071."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class Llama3Scaling:
    """Wave lengths beyond the old context stretched, with a smooth passage (Llama 3.1, R1-Distill-Llama)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class RopeSpec:
    """Which channels turn, how fast, and how they pair up (see kernels.rotate)."""

    dim: int
    theta: float
    interleaved: bool = False
    scaling: LinearScaling | YarnScaling | Llama3Scaling | None = None

    @property
    def amplitude(self) -> float:
        """The factor on cos and sin; differs from 1 only for YaRN."""
        if not isinstance(self.scaling, YarnScaling):
            return 1.0
        yarn = self.scaling
        if yarn.attention_factor is not None:
            return yarn.attention_factor
        if yarn.mscale and yarn.mscale_all_dim:
            return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)
        return _mscale(yarn.factor, 1.0)

    @property
    def softmax_factor(self) -> float:
        """The factor m^2 on MLA's softmax scale, m = 0.1 mscale_all_dim ln(factor) + 1."""
        if isinstance(self.scaling, YarnScaling) and self.scaling.mscale_all_dim:
            return _mscale(self.scaling.factor, self.scaling.mscale_all_dim) ** 2
        return 1.0

    @cached_property
    def inverse_frequencies(self) -> Tensor:
        """Radians per position of each pair: (dim / 2), float32."""
        plain = 1.0 / self.theta ** (torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim)
        match self.scaling:
            case None:
                return plain
            case LinearScaling(factor):
                return plain / factor
            case YarnScaling() as yarn:
                return _yarn(plain, yarn, self.dim, self.theta)
            case Llama3Scaling() as llama3:
                return _llama3(plain, llama3)

    def table(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of every position's angles: two (T, dim / 2), float32."""
        angles_TR = torch.outer(positions_T.float(), self.inverse_frequencies.to(positions_T.device))
        cos_TR, sin_TR, amplitude = angles_TR.cos(), angles_TR.sin(), self.amplitude
        return (cos_TR, sin_TR) if amplitude == 1 else (cos_TR * amplitude, sin_TR * amplitude)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _yarn(plain: Tensor, yarn: YarnScaling, dim: int, theta: float) -> Tensor:
    def channel(turns: float) -> float:
        """The channel that makes this many turns within the original context."""
        return dim * math.log(yarn.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(yarn.beta_fast), channel(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return plain / yarn.factor * ramp + plain * (1 - ramp)


def _llama3(plain: Tensor, llama3: Llama3Scaling) -> Tensor:
    turns = plain * llama3.original_max_position_embeddings / (2 * math.pi)
    smooth = (turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return plain * smooth + plain / llama3.factor * (1 - smooth)
