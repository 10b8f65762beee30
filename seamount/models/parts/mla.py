"""Multi-head latent attention: the cache keeps one small latent per token instead of every head's keys and values."""

from typing import Literal

import torch
from torch import Tensor, nn

from seamount import kernels
from seamount.kernels.packing import Packed, unpack
from seamount.models.parts.batch import Batch
from seamount.models.parts.linear import Linear, RMSNorm
from seamount.models.spec import MLASpec


class LatentAttention(nn.Module):
    """MLA in two forms that agree: `absorbed`, which everything runs, and `expanded`, the papers' form and its oracle.

    Layout: a cached row is the normed latent (C), then the one rotated key that all heads share (R). The rows of
    `kv_b_proj` are, head by head, N for the key and V for the value.
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C.
    """

    def __init__(self, spec: MLASpec, hidden_size: int, rms_norm_eps: float, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.form: Literal["absorbed", "expanded"] = "absorbed"
        H, C, R = spec.num_attention_heads, spec.kv_lora_rank, spec.qk_rope_head_dim
        query_dim = H * (spec.qk_nope_head_dim + R)
        if spec.q_lora_rank is None:
            self.q_proj = Linear(hidden_size, query_dim)
        else:
            self.q_a_proj = Linear(hidden_size, spec.q_lora_rank, bias=spec.bias)
            self.q_a_layernorm = RMSNorm(spec.q_lora_rank, spec.latent_norm_eps)
            self.q_b_proj = Linear(spec.q_lora_rank, query_dim)
        self.kv_a_proj_with_mqa = Linear(hidden_size, C + R, bias=spec.bias)
        self.kv_a_layernorm = RMSNorm(C, spec.latent_norm_eps)
        # Packed, these two stand for kv_b_proj: (H, C, N) and (H, V, C).
        self.w_uk: Packed | None = None
        self.w_uv: Packed | None = None
        self.kv_b_proj = Linear(C, H * (spec.qk_nope_head_dim + spec.v_head_dim))
        self.o_proj = Linear(H * spec.v_head_dim, hidden_size, bias=spec.bias)

    def forward(self, x_TD: Tensor, batch: Batch) -> Tensor:
        """(T, D) -> (T, D)."""
        spec = self.spec
        N, C = spec.qk_nope_head_dim, spec.kv_lora_rank
        q_nope_THN, q_rope_THR = self._queries(x_TD).split((N, spec.qk_rope_head_dim), dim=-1)
        latent_TC, k_rope_TR = self.kv_a_proj_with_mqa(x_TD).split((C, spec.qk_rope_head_dim), dim=-1)
        cos_TR, sin_TR = batch.rope(spec.rope)
        q_rope_THR = kernels.rotate(q_rope_THR, cos_TR, sin_TR, interleaved=spec.rope.interleaved)
        k_rope_T1R = kernels.rotate(k_rope_TR[:, None], cos_TR, sin_TR, interleaved=spec.rope.interleaved)
        rows_TQ = torch.cat((self.kv_a_layernorm(latent_TC), k_rope_T1R[:, 0]), dim=-1)
        attend = self._absorbed if self.form == "absorbed" else self._expanded
        return self.o_proj(attend(q_nope_THN, q_rope_THR, rows_TQ, batch).flatten(1))

    def _queries(self, x_TD: Tensor) -> Tensor:
        if self.spec.q_lora_rank is None:
            q_TX = self.q_proj(x_TD)
        else:
            q_TX = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_TD)))
        return q_TX.unflatten(-1, (self.spec.num_attention_heads, -1))

    def _absorbed(self, q_nope_THN: Tensor, q_rope_THR: Tensor, rows_TQ: Tensor, batch: Batch) -> Tensor:
        spec = self.spec
        q_THQ = torch.cat((self._query_to_latent(q_nope_THN), q_rope_THR), dim=-1)
        if batch.is_cached:
            rows = batch.write(self.layer, rows_TQ)
            return self._latent_to_value(
                kernels.paged_latent_attention(q_THQ, rows, spec.kv_lora_rank, spec.softmax_scale)
            )
        out_THC = torch.cat(
            [
                kernels.latent_attention(q_THQ[place], rows_SQ, spec.kv_lora_rank, spec.softmax_scale)
                for place, rows_SQ in batch.sequences(self.layer, rows_TQ)
            ]
        )
        return self._latent_to_value(out_THC)

    def _query_to_latent(self, q_nope_THN: Tensor) -> Tensor:
        """W_UK^T q of each head: (T, H, N) -> (T, H, C)."""
        if self.w_uk is not None:
            return kernels.packed_heads(q_nope_THN, self.w_uk)
        w_uk_HNC = self._kv_b_HYC()[:, : self.spec.qk_nope_head_dim]
        return kernels.head_linear(q_nope_THN, w_uk_HNC.transpose(1, 2))

    def _latent_to_value(self, out_THC: Tensor) -> Tensor:
        """W_UV c of each head: (T, H, C) -> (T, H, V)."""
        if self.w_uv is not None:
            return kernels.packed_heads(out_THC, self.w_uv)
        return kernels.head_linear(out_THC, self._kv_b_HYC()[:, self.spec.qk_nope_head_dim :])

    def _expanded(self, q_nope_THN: Tensor, q_rope_THR: Tensor, rows_TQ: Tensor, batch: Batch) -> Tensor:
        q_THX, kv_b_HYC = torch.cat((q_nope_THN, q_rope_THR), dim=-1), self._kv_b_HYC()
        return torch.cat(
            [
                kernels.expanded_latent_attention(
                    q_THX[place], rows_SQ, kv_b_HYC, self.spec.qk_nope_head_dim, self.spec.softmax_scale
                )
                for place, rows_SQ in batch.sequences(self.layer, rows_TQ)
            ]
        )

    def _kv_b_HYC(self) -> Tensor:
        if self.w_uk is not None and self.w_uv is not None:
            parts = unpack(self.w_uk).transpose(1, 2), unpack(self.w_uv)
            return torch.cat(parts, dim=1).to(self.kv_a_layernorm.weight.dtype)
        return self.kv_b_proj.weight.unflatten(0, (self.spec.num_attention_heads, -1))
