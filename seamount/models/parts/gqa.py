"""Grouped-query attention: Llama's, and with biases or head norms Qwen2's and Qwen3's."""

import torch
from torch import Tensor, nn

from seamount import kernels
from seamount.models.parts.batch import Batch
from seamount.models.parts.linear import Linear, RMSNorm
from seamount.models.spec import GQASpec


class GroupedQueryAttention(nn.Module):
    """One fused projection to queries, keys and values; rotation; causal attention; output projection.

    Layout: rows of `qkv_proj` are all query heads, then all key heads, then all value heads; a cached row is the keys,
    then the values.
    """

    def __init__(self, spec: GQASpec, hidden_size: int, rms_norm_eps: float, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        heads = spec.num_attention_heads + 2 * spec.num_key_value_heads
        self.qkv_proj = Linear(hidden_size, heads * spec.head_dim, bias=spec.qkv_bias)
        self.o_proj = Linear(spec.num_attention_heads * spec.head_dim, hidden_size, bias=spec.output_bias)
        self.q_norm = RMSNorm(spec.head_dim, rms_norm_eps) if spec.qk_norm else None
        self.k_norm = RMSNorm(spec.head_dim, rms_norm_eps) if spec.qk_norm else None

    def forward(self, x_TD: Tensor, batch: Batch) -> Tensor:
        """(T, D) -> (T, D)."""
        spec = self.spec
        H, G, N = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
        qkv_THN = self.qkv_proj(x_TD).unflatten(-1, (-1, N))
        qk_THN, v_TGN = qkv_THN[:, : H + G], qkv_THN[:, H + G :]
        if self.q_norm is not None and self.k_norm is not None:
            qk_THN = torch.cat((self.q_norm(qk_THN[:, :H]), self.k_norm(qk_THN[:, H:])), dim=1)
        cos_TR, sin_TR = batch.rope(spec.rope)
        qk_THN = kernels.rotate(qk_THN, cos_TR, sin_TR, interleaved=spec.rope.interleaved)
        rows_TX = torch.cat((qk_THN[:, H:], v_TGN), dim=1).flatten(1)
        if batch.is_cached:
            rows = batch.write(self.layer, rows_TX)
            return self.o_proj(kernels.paged_causal_attention(qk_THN[:, :H], rows, G, spec.softmax_scale).flatten(1))
        parts = []
        for place, rows_SX in batch.sequences(self.layer, rows_TX):
            rows_SGN = rows_SX.unflatten(-1, (2 * G, N))
            parts.append(
                kernels.causal_attention(qk_THN[place, :H], rows_SGN[:, :G], rows_SGN[:, G:], spec.softmax_scale)
            )
        return self.o_proj((parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(1))
