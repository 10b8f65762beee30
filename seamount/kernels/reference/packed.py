"""Products with packed weights: integer activations, exact integer sums, two float32 multiplications at the end.

The arithmetic is fixed, so that every kernel can equal it bit for bit: `(float32(sum) * scale_x) * scale[n]`; SwiGLU in
float32, quantised again for each row; experts added in ascending order, each as `out + weight * y` in float32 without a
fused multiply-add; the shared experts last.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from seamount.kernels.group_packing import GROUP, GROUP_FORMATS, OFFSET, parts
from seamount.kernels.packing import QUAD, Packed, codes, quantise_rows, split_rows


def packed_product(x_TK: Tensor, weight: Packed) -> Tensor:
    """`x W^T` in float32: (T, K) of any floating dtype -> (T, N); a stack of weights is taken as one, (T, X N).

    Layout: the sum is exact in float64, which holds every integer below 2^53.
    """
    if weight.format in GROUP_FORMATS:
        return _group_product(x_TK, weight)
    q_TK, scale_T = quantise_rows(x_TK)
    w8_NK = codes(weight).reshape(-1, weight.columns)
    scale_N = weight.scale[..., : weight.rows].reshape(-1)
    sum_TN = q_TK.double() @ w8_NK.double().T
    return sum_TN.float() * scale_T[:, None] * scale_N


def _group_product(x_TK: Tensor, weight: Packed) -> Tensor:
    """`packed_product` with float scales for groups of inputs: the order stands at the top of cpu/group_products.py."""
    format, K = weight.format, weight.columns
    assert format in OFFSET, "only these formats have scales of groups"
    lower_TK, upper_TK, scale_T = split_rows(x_TK)
    stored = parts(format, weight.blocks, weight.rows, K)
    w_NK = (stored.code.double() - OFFSET[format]).flatten(0, -2)
    scales_GN = stored.scale.flatten(0, -2).T
    minima_GN = None if stored.minimum is None else stored.minimum.flatten(0, -2).T
    total_TN = torch.zeros(len(x_TK), len(w_NK))

    def add(total_TN: Tensor, q_TI: Tensor, w_NI: Tensor, group: int) -> Tensor:
        total_TN = _fma((q_TI @ w_NI.T).float(), scales_GN[group], total_TN)
        return total_TN if minima_GN is None else _fma(q_TI.sum(1, keepdim=True).float(), minima_GN[group], total_TN)

    for first in range(0, K, GROUP):
        part = slice(first, first + GROUP)
        total_TN = add(total_TN, lower_TK[:, part].double(), w_NK[:, part], first // GROUP)
    for first in range(0, K, QUAD):
        part = slice(first, first + QUAD)
        is_large_T = upper_TK[:, part].any(1)
        if is_large_T.any():
            upper_TI = upper_TK[is_large_T, part].double() * 128
            total_TN[is_large_T] = add(total_TN[is_large_T], upper_TI, w_NK[:, part], first // GROUP)
    return total_TN * scale_T[:, None]


def _fma(left: Tensor, right: Tensor, plus: Tensor) -> Tensor:
    """`left * right + plus` of float32, rounded once: a product of two is exact in float64, their sum is made so.

    Source: rounding to odd, S. Boldo and G. Melquiond, Emulation of FMA and correctly rounded sums, 2008.
    """
    product, plus = left.double() * right.double(), plus.double()
    total = product + plus
    back = total - product
    error = (product - (total - back)) + (plus - back)
    # Where float64 had to round to an even last bit, take its odd neighbour on the side of the error.
    bits = total.contiguous().view(torch.int64)
    is_even = (error != 0) & (bits & 1 == 0)
    step = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where(is_even, bits + step, bits).view(torch.float64).float()


def packed_linear(x_TD: Tensor, weight: Packed, bias_F: Tensor | None = None) -> Tensor:
    """`x W^T + b`, in the dtype of `x`; the bias is added in float32."""
    lead, y_TF = x_TD.shape[:-1], packed_product(x_TD.flatten(0, -2), weight)
    if bias_F is not None:
        y_TF = y_TF + bias_F.float()
    return y_TF.to(x_TD.dtype).unflatten(0, lead)


def packed_heads(x_THK: Tensor, weight: Packed) -> Tensor:
    """Each head's own product: (T, H, K) with a stack (H, N, K) -> (T, H, N), in the dtype of `x`."""
    heads = [packed_product(x_TK, weight[head]) for head, x_TK in enumerate(x_THK.unbind(1))]
    return torch.stack(heads, dim=1).to(x_THK.dtype)


def packed_feed_forward(x_TD: Tensor, gate_up: Packed, down: Packed) -> Tensor:
    """`down(silu(gate x) * up x)` in float32: (T, D), gate_up (2, F, D), down (D, F) -> (T, D)."""
    gate_TF, up_TF = packed_product(x_TD, gate_up).chunk(2, dim=-1)
    return packed_product(F.silu(gate_TF) * up_TF, down)


def packed_mixture(
    x_TD: Tensor,
    expert_TK: Tensor,
    weight_TK: Tensor,
    gate_up: Packed,
    down: Packed,
    shared: tuple[Packed, Packed] | None = None,
) -> Tensor:
    """The routed experts' weighted sum and the shared experts, in the dtype of `x`.

    Shapes: x (T, D), expert (T, K) int64, weight (T, K) float32, gate_up (E, 2, F, D), down (E, D, F) -> (T, D).
    """
    total_TD = torch.zeros(x_TD.shape)
    for expert in expert_TK.unique().tolist():
        token_N, slot_N = (expert_TK == expert).nonzero(as_tuple=True)
        y_ND = packed_feed_forward(x_TD[token_N], gate_up[expert], down[expert])
        total_TD[token_N] = total_TD[token_N] + weight_TK[token_N, slot_N, None] * y_ND
    if shared is not None:
        total_TD = total_TD + packed_feed_forward(x_TD, *shared)
    return total_TD.to(x_TD.dtype)
