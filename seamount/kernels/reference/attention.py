"""Causal attention of one sequence's newest tokens over all of its rows.

The T queries are the last T of the S rows: query t sees rows 0 .. S - T + t.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_attention(q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, scale: float) -> Tensor:
    """Grouped-query attention: (T, H, N) over G key-value heads, each serving H/G query heads in a row.

    Source: GQA, arXiv 2305.13245; with G = H it is multi-head, with G = 1 multi-query attention.
    """
    T, S = q_THN.shape[0], k_SGN.shape[0]
    out_HTN = F.scaled_dot_product_attention(
        q_THN.transpose(0, 1)[None],
        k_SGN.transpose(0, 1)[None],
        v_SGN.transpose(0, 1)[None],
        attn_mask=None if T in (1, S) else visible(T, S, q_THN.device),
        is_causal=T == S and T > 1,
        scale=scale,
        enable_gqa=True,
    )
    return out_HTN[0].transpose(0, 1)


def latent_attention(q_THQ: Tensor, rows_SQ: Tensor, latent_dim: int, scale: float) -> Tensor:
    """MLA's absorbed form: every head reads the same cached row as key, and its first C numbers as value.

    Shapes: q (T, H, C + R), rows (S, C + R) -> (T, H, C).
    Cost: 2 T H S (2 C + R) operations; each row is read once, whatever H.
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C.
    Equals: expanded_latent_attention, after the heads' value projection.
    """
    T, S = q_THQ.shape[0], rows_SQ.shape[0]
    score_THS = torch.matmul(q_THQ, rows_SQ.T).float() * scale
    if T > 1:
        score_THS = score_THS.masked_fill(~visible(T, S, q_THQ.device).unsqueeze(1), float("-inf"))
    return torch.matmul(score_THS.softmax(-1).to(rows_SQ.dtype), rows_SQ[:, :latent_dim])


def expanded_latent_attention(q_THX: Tensor, rows_SQ: Tensor, kv_b_HYC: Tensor, nope_dim: int, scale: float) -> Tensor:
    """MLA as the papers write it: keys and values of every head are rebuilt from the latent, then attended to.

    Shapes: q (T, H, N + R), rows (S, C + R), kv_b (H, N + V, C) -> (T, H, V).
    Source: DeepSeek-V2, arXiv 2405.04434, equations 9 to 13.
    """
    T, H, _ = q_THX.shape
    S, C = rows_SQ.shape[0], kv_b_HYC.shape[-1]
    key_value_SHY = torch.einsum("sc,hyc->shy", rows_SQ[:, :C], kv_b_HYC)
    k_nope_SHN, v_SHV = key_value_SHY[..., :nope_dim], key_value_SHY[..., nope_dim:]
    k_SHX = torch.cat((k_nope_SHN, rows_SQ[:, None, C:].expand(S, H, -1)), dim=-1)
    score_HTS = torch.einsum("thx,shx->hts", q_THX, k_SHX).float() * scale
    score_HTS = score_HTS.masked_fill(~visible(T, S, q_THX.device), float("-inf"))
    return torch.einsum("hts,shv->thv", score_HTS.softmax(-1).to(v_SHV.dtype), v_SHV)


def visible(T: int, S: int, device: torch.device) -> Tensor:
    """Which of S rows each of the last T tokens may see: (T, S), boolean."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
