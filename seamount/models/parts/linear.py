"""The modules that hold one weight each: linear, RMS norm, embedding."""

import torch
from torch import Tensor, nn

from seamount import kernels


class Linear(nn.Module):
    """`x W^T + b`. Weight (F, D), as checkpoints store it."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) -> (T, F)."""
        return kernels.linear(x_TD, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight per channel."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        return kernels.rms_norm(x_TD, self.weight, self.eps)


class Embedding(nn.Module):
    """One row per token of the vocabulary: (W, D)."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim))

    def forward(self, tokens_T: Tensor) -> Tensor:
        """(T) -> (T, D)."""
        return self.weight[tokens_T]
