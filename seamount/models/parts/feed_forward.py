"""Feed-forward layers: dense SwiGLU, and DeepSeekMoE."""

import torch
from torch import Tensor, nn

from seamount import kernels
from seamount.models.parts.linear import Linear
from seamount.models.parts.router import Router
from seamount.models.spec import DenseSpec, MoESpec


class DenseFeedForward(nn.Module):
    """`down(silu(gate x) * up x)`, gate and up in one product."""

    def __init__(self, intermediate_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden_size, 2 * intermediate_size)
        self.down_proj = Linear(intermediate_size, hidden_size)

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        return kernels.feed_forward(x_TD, self.gate_up_proj.weight, self.down_proj.weight)


class Experts(nn.Module):
    """All routed experts of a layer, stacked: gate_up (E, 2F, D) and down (E, D, F)."""

    def __init__(self, count: int, intermediate_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(count, hidden_size, intermediate_size))

    def forward(self, x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        return kernels.grouped_experts(x_TD, expert_TK, weight_TK, self.gate_up_proj, self.down_proj)


class MixtureOfExperts(nn.Module):
    """The routed experts' weighted sum, plus the shared experts, which are one wider dense feed-forward.

    Source: DeepSeekMoE, arXiv 2401.06066, section 3.
    """

    def __init__(self, spec: MoESpec, hidden_size: int) -> None:
        super().__init__()
        self.gate = Router(spec, hidden_size)
        self.experts = Experts(spec.n_routed_experts, spec.moe_intermediate_size, hidden_size)
        self.shared_experts = (
            DenseFeedForward(spec.n_shared_experts * spec.moe_intermediate_size, hidden_size)
            if spec.n_shared_experts
            else None
        )

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        expert_TK, weight_TK = self.gate(x_TD)
        gate_up, down, shared = self.experts.gate_up_proj, self.experts.down_proj, self.shared_experts
        if isinstance(gate_up, kernels.Packed):
            weights = None if shared is None else (shared.gate_up_proj.weight, shared.down_proj.weight)
            return kernels.packed_mixture(x_TD, expert_TK, weight_TK, gate_up, down, weights)
        routed_TD = self.experts(x_TD, expert_TK, weight_TK)
        return routed_TD if shared is None else routed_TD + shared(x_TD)


def feed_forward(spec: DenseSpec | MoESpec, hidden_size: int) -> nn.Module:
    """The module that a spec describes."""
    if isinstance(spec, MoESpec):
        return MixtureOfExperts(spec, hidden_size)
    return DenseFeedForward(spec.intermediate_size, hidden_size)
