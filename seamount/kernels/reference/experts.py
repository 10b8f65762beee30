"""The routed experts of a mixture: each token through its own few of many small feed-forwards."""

import torch
from torch import Tensor

from seamount.kernels.reference.dense import linear, swiglu


def grouped_experts(
    x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """`sum_k weight[t, k] * expert[t, k](x[t])`, added in the order of the slots k, in float32.

    Shapes: x (T, D), expert (T, K) int64, weight (T, K) float32, gate_up (E, 2F, D), down (E, D, F) -> (T, D).
    Cost: 6 T K F D operations; reads 3 F D weights of every expert that any token chose.
    Source: DeepSeekMoE, arXiv 2401.06066, equation 3.
    """
    T, K = expert_TK.shape
    out_ND = x_TD.new_empty(T * K, x_TD.shape[-1])
    slot_N = expert_TK.flatten().argsort(stable=True)
    counts = torch.bincount(expert_TK.flatten(), minlength=gate_up_E2FD.shape[0]).tolist()
    parts = []
    for expert, slots in enumerate(slot_N.split(counts)):
        if len(slots):
            hidden = swiglu(linear(x_TD[slots // K], gate_up_E2FD[expert]))
            parts.append(linear(hidden, down_EDF[expert]))
    out_ND = out_ND.index_copy(0, slot_N, torch.cat(parts))
    total_TD = torch.zeros_like(x_TD, dtype=torch.float32)
    for slot, part_TD in enumerate(out_ND.view(T, K, -1).unbind(1)):
        total_TD = total_TD + weight_TK[:, slot, None] * part_TD
    return total_TD.to(x_TD.dtype)


def static_experts(
    x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """grouped_experts for few tokens, with shapes that do not depend on the choice of experts, as CUDA graphs need.

    Cost: where the choices are few, a copy of each chosen expert; else every expert's product for every token.
    """
    T, K = expert_TK.shape
    E = len(gate_up_E2FD)
    if 2 * T * K <= E:
        chosen_N = expert_TK.flatten()
        x_N1D = x_TD.repeat_interleave(K, dim=0)[:, None]
        hidden_N1F = swiglu(torch.bmm(x_N1D, gate_up_E2FD[chosen_N].transpose(1, 2)))
        out_TKD = torch.bmm(hidden_N1F, down_EDF[chosen_N].transpose(1, 2)).view(T, K, -1)
    else:
        hidden_ETF = swiglu(torch.bmm(x_TD.expand(E, -1, -1), gate_up_E2FD.transpose(1, 2)))
        out_ETD = torch.bmm(hidden_ETF, down_EDF.transpose(1, 2))
        out_TKD = out_ETD[expert_TK, torch.arange(T, device=x_TD.device)[:, None]]
    total_TD = torch.zeros_like(x_TD, dtype=torch.float32)
    for slot, part_TD in enumerate(out_TKD.unbind(1)):
        total_TD = total_TD + weight_TK[:, slot, None] * part_TD
    return total_TD.to(x_TD.dtype)
