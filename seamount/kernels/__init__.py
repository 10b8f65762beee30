"""The operations that models are made of. Models call them through this page only.

`reference/` is the specification; a faster implementation of an operation is chosen here and nowhere else. Tensors of
float32 or bfloat16 on a CPU take the canonical kernels of `cpu/`, where a token's result depends on its own row alone;
all else takes the reference.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from seamount.kernels import reference
from seamount.kernels.cpu import attention_ops, autograd, cached_rows, dense, grouped, heads, norms, sampling
from seamount.kernels.cpu.checksum import checksum
from seamount.kernels.packing import Packed
from seamount.kernels.paged import PagedRows
from seamount.kernels.reference import (
    Draw,
    expanded_latent_attention,
    packed_heads,
    packed_mixture,
)
from seamount.kernels.row_format import RowFormat

_FEW_TOKENS = 128  # up to which experts on CUDA take shapes that a graph can capture


def _is_canonical(*tensors: Tensor | None) -> bool:
    """Whether all these are on a CPU and of the first's dtype, float32 or bfloat16."""
    dtype = torch.float32 if tensors[0] is None or tensors[0].dtype is torch.float32 else torch.bfloat16
    return all(tensor is None or (tensor.dtype is dtype and tensor.is_cpu) for tensor in tensors)


def _is_paged(x: Tensor, rows: PagedRows) -> bool:
    """Whether the canonical kernels read and write these rows for `x`."""
    return _is_canonical(x) and (rows.pages_PSX.is_cpu if rows.format else _is_canonical(x, rows.pages_PSX))


def linear(x_TD: Tensor, weight_FD: Tensor | Packed, bias_F: Tensor | None = None) -> Tensor:
    """`x W^T + b`, in the dtype of `x`: see reference.linear, and reference.packed_linear for packed weights."""
    if isinstance(weight_FD, Packed):
        return reference.packed_linear(x_TD, weight_FD, bias_F)
    if not _is_canonical(x_TD, weight_FD, bias_F):
        return reference.linear(x_TD, weight_FD, bias_F)
    if autograd.wants_gradient(x_TD, weight_FD, bias_F):
        return autograd.Linear.apply(x_TD, weight_FD, bias_F)
    return dense.linear(x_TD, weight_FD, bias_F)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * w` over the last dimension: see reference.rms_norm."""
    specification = partial(reference.rms_norm, eps=eps)
    if not _is_canonical(x_TD, weight_D):
        return specification(x_TD, weight_D)
    return autograd.run(partial(norms.rms_norm, eps=eps), specification, x_TD, weight_D)


def rotate(x_THR: Tensor, cos_TR: Tensor, sin_TR: Tensor, *, interleaved: bool) -> Tensor:
    """`x` with each pair of channels turned by its token's angle: see reference.rotate."""
    specification = partial(reference.rotate, interleaved=interleaved)
    if not _is_canonical(x_THR) or not _is_canonical(cos_TR, sin_TR) or cos_TR.dtype is not torch.float32:
        return specification(x_THR, cos_TR, sin_TR)
    return autograd.run(partial(norms.rotate, interleaved=interleaved), specification, x_THR, cos_TR, sin_TR)


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """`silu(gate) * up` of rows that hold gate and up side by side: see reference.swiglu."""
    if not _is_canonical(gate_up_T2F):
        return reference.swiglu(gate_up_T2F)
    return autograd.run(norms.swiglu, reference.swiglu, gate_up_T2F)


def sigmoid(x_TE: Tensor) -> Tensor:
    """`1 / (1 + exp(-x))`, in float32: see reference.sigmoid."""
    if not _is_canonical(x_TE):
        return reference.sigmoid(x_TE)
    return autograd.run(norms.sigmoid, reference.sigmoid, x_TE.float())


def log_softmax(logits_TW: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, in float32: see reference.log_softmax."""
    if not _is_canonical(logits_TW):
        return reference.log_softmax(logits_TW)
    return autograd.run(norms.log_softmax, reference.log_softmax, logits_TW.float())


def grouped_experts(
    x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """The routed experts' weighted sum, added in the order of the slots: see reference.grouped_experts."""
    inputs = x_TD, expert_TK, weight_TK, gate_up_E2FD, down_EDF
    if x_TD.is_cuda and len(x_TD) <= _FEW_TOKENS and not autograd.wants_gradient(x_TD, gate_up_E2FD, down_EDF):
        return reference.static_experts(*inputs)
    if not _is_canonical(x_TD, gate_up_E2FD, down_EDF):
        return reference.grouped_experts(*inputs)
    return autograd.run(grouped.grouped_experts, reference.grouped_experts, *inputs)


def head_linear(x_THK: Tensor, weight_HNK: Tensor) -> Tensor:
    """Each head's own `x W^T`: see reference.head_linear."""
    if not _is_canonical(x_THK, weight_HNK):
        return reference.head_linear(x_THK, weight_HNK)
    return autograd.run(heads.head_linear, reference.head_linear, x_THK, weight_HNK)


def causal_attention(q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, scale: float) -> Tensor:
    """Grouped-query attention of the last T of S tokens: see reference.causal_attention."""
    specification = partial(reference.causal_attention, scale=scale)
    if not _is_canonical(q_THN, k_SGN, v_SGN):
        return specification(q_THN, k_SGN, v_SGN)
    return autograd.run(partial(attention_ops.causal_attention, scale=scale), specification, q_THN, k_SGN, v_SGN)


def latent_attention(q_THQ: Tensor, rows_SQ: Tensor, latent_dim: int, scale: float) -> Tensor:
    """MLA's absorbed form over cached rows: see reference.latent_attention."""
    specification = partial(reference.latent_attention, latent_dim=latent_dim, scale=scale)
    if not _is_canonical(q_THQ, rows_SQ):
        return reference.latent_attention(q_THQ, rows_SQ, latent_dim, scale)
    kernel = partial(attention_ops.latent_attention, latent_dim=latent_dim, scale=scale)
    return autograd.run(kernel, specification, q_THQ, rows_SQ)


def write_rows(rows: PagedRows, rows_TX: Tensor) -> None:
    """Store a batch's new rows in their pages: see reference.write_rows."""
    module = cached_rows if _is_paged(rows_TX, rows) else reference
    module.write_rows(rows, rows_TX)


def paged_causal_attention(q_THN: Tensor, rows: PagedRows, groups: int, scale: float) -> Tensor:
    """Grouped-query attention of every sequence of a batch, without gradients: see reference.paged_causal_attention."""
    module = attention_ops if _is_paged(q_THN, rows) else reference
    return module.paged_causal_attention(q_THN, rows, groups, scale)


def paged_latent_attention(q_THQ: Tensor, rows: PagedRows, latent_dim: int, scale: float) -> Tensor:
    """MLA's absorbed form for every sequence of a batch, without gradients: see reference.paged_latent_attention."""
    module = attention_ops if _is_paged(q_THQ, rows) else reference
    return module.paged_latent_attention(q_THQ, rows, latent_dim, scale)


def feed_forward(x_TD: Tensor, gate_up: Tensor | Packed, down: Tensor | Packed) -> Tensor:
    """`down(silu(gate x) * up x)`, in the dtype of `x`: (T, D), gate_up (2F, D) or packed (2, F, D), down (D, F)."""
    if isinstance(gate_up, Packed) and isinstance(down, Packed):
        return reference.packed_feed_forward(x_TD, gate_up, down).to(x_TD.dtype)
    return linear(swiglu(linear(x_TD, gate_up)), down)


def draw_tokens(logits_nW: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Each row's token, filtered and drawn: see reference.draw_tokens. Logits on a GPU are moved to the CPU."""
    return sampling.draw_tokens(_as_float32(logits_nW), draws)


def top_tokens(values_nW: Tensor, count: int) -> Tensor:
    """The ids of each row's largest numbers, on the CPU: see reference.top_tokens."""
    return sampling.top_tokens(_as_float32(values_nW), count)


def _as_float32(tensor: Tensor) -> Tensor:
    """On the CPU and without a gradient; what is so already is not asked to become it, which takes microseconds."""
    if tensor.is_cpu and tensor.dtype is torch.float32 and not tensor.requires_grad:
        return tensor
    return tensor.detach().float().cpu()


__all__ = [
    "Draw",
    "Packed",
    "PagedRows",
    "RowFormat",
    "causal_attention",
    "checksum",
    "draw_tokens",
    "expanded_latent_attention",
    "feed_forward",
    "grouped_experts",
    "head_linear",
    "latent_attention",
    "linear",
    "log_softmax",
    "packed_heads",
    "packed_mixture",
    "paged_causal_attention",
    "paged_latent_attention",
    "rms_norm",
    "rotate",
    "sigmoid",
    "swiglu",
    "top_tokens",
    "write_rows",
]
