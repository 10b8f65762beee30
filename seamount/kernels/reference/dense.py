"""Operations on one row at a time: linear, RMS norm, SwiGLU, sigmoid, log-softmax."""

import torch
from torch import Tensor
from torch.nn import functional as F


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """`x W^T + b`, in the dtype of `x`."""
    return F.linear(x_TD, weight_FD, bias_F)


def head_linear(x_THK: Tensor, weight_HNK: Tensor) -> Tensor:
    """Each head's own `x W^T`: (T, H, K) with (H, N, K) -> (T, H, N)."""
    return torch.einsum("thk,hnk->thn", x_THK, weight_HNK)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * w` over the last dimension.

    The quotient is taken in float32 and rounded to the dtype of `x` before the weight, as Llama's published code does.
    """
    if x_TD.dtype == torch.float32:
        return F.rms_norm(x_TD, weight_D.shape, weight_D, eps)
    return F.rms_norm(x_TD.float(), weight_D.shape, None, eps).to(x_TD.dtype) * weight_D


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """`silu(gate) * up` of rows that hold gate and up side by side: (T, 2F) -> (T, F)."""
    gate_TF, up_TF = gate_up_T2F.chunk(2, dim=-1)
    return F.silu(gate_TF) * up_TF


def sigmoid(x_TE: Tensor) -> Tensor:
    """`1 / (1 + exp(-x))`, in float32."""
    return x_TE.float().sigmoid()


def log_softmax(logits_TW: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, in float32."""
    return F.log_softmax(logits_TW.float(), dim=-1)
