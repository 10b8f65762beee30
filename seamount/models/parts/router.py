"""The three ways in which the family chooses a token's experts."""

import torch
from torch import Tensor, nn

from seamount import kernels
from seamount.models.spec import MoESpec


class Router(nn.Module):
    """Scores every expert for every token in float32, and chooses the top k.

    Source: DeepSeekMoE, arXiv 2401.06066, section 3; group limits from DeepSeek-V2, arXiv 2405.04434, section 2.2.2;
    `noaux_tc` from DeepSeek-V3, arXiv 2412.19437, section 2.1.2.
    """

    def __init__(self, spec: MoESpec, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.n_routed_experts, hidden_size))
        if spec.topk_method == "noaux_tc":
            # Moved by the balancing rule, never by a gradient; it chooses experts and does not weigh them.
            self.e_score_correction_bias = nn.Parameter(
                torch.empty(spec.n_routed_experts, dtype=torch.float32), requires_grad=False
            )

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts (T, K), int64, and their weights (T, K), float32."""
        spec = self.spec
        logits_TE = kernels.linear(x_TD.float(), self.weight.float())
        # torch's own sigmoid depends on where in a tensor a number stands.
        score_TE = kernels.sigmoid(logits_TE) if spec.scoring_func == "sigmoid" else logits_TE.softmax(-1)
        expert_TK = self._choose(score_TE.detach()).topk(spec.num_experts_per_tok, dim=-1).indices
        weight_TK = score_TE.gather(-1, expert_TK)
        if spec.norm_topk_prob and spec.num_experts_per_tok > 1:
            weight_TK = weight_TK / (weight_TK.sum(-1, keepdim=True) + 1e-20)
        if spec.scale_normalised or not spec.norm_topk_prob:
            weight_TK = weight_TK * spec.routed_scaling_factor
        return expert_TK, weight_TK

    def _choose(self, score_TE: Tensor) -> Tensor:
        """What the top k are taken of: scores, biased for `noaux_tc`, with the experts of lesser groups left out."""
        spec = self.spec
        if spec.topk_method == "greedy":
            return score_TE
        if spec.topk_method == "noaux_tc":
            score_TE = score_TE + self.e_score_correction_bias
        group_TGE = score_TE.unflatten(-1, (spec.n_group, -1))
        best_count = min(2, group_TGE.shape[-1]) if spec.topk_method == "noaux_tc" else 1
        best_TG = group_TGE.topk(best_count, dim=-1).values.sum(-1)
        kept_TG = torch.zeros_like(best_TG, dtype=torch.bool).scatter(-1, best_TG.topk(spec.topk_group).indices, True)
        # A biased score can be negative, so only minus infinity is surely below every kept one.
        return group_TGE.masked_fill(~kept_TG[..., None], float("-inf")).flatten(-2)
