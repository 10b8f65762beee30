"""The paged operations in plain torch: sequence after sequence, or all at once where each has one new token.

A step of single tokens runs the same operations on the same shapes whatever the counts, as a CUDA graph needs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from seamount.kernels.paged import PAGE, PagedRows
from seamount.kernels.reference.attention import causal_attention, latent_attention


def write_rows(rows: PagedRows, rows_TX: Tensor) -> None:
    """Store the batch's new rows (T, X) at their places: the last `lengths[b]` rows of each sequence b."""
    position_T, table_TN = rows.counts_B - 1, rows.table_BN
    if not _is_decode(rows):
        device = rows.counts_B.device
        lengths_B = torch.tensor(rows.lengths, device=device)
        behind_T = torch.cat([torch.arange(length - 1, -1, -1, device=device) for length in rows.lengths])
        position_T = position_T.repeat_interleave(lengths_B) - behind_T
        table_TN = table_TN.repeat_interleave(lengths_B, dim=0)
    page_T = table_TN.gather(1, (position_T // PAGE)[:, None])[:, 0]
    rows.pages_PSX[page_T, position_T % PAGE] = rows.format.encode(rows_TX) if rows.format else rows_TX


def paged_causal_attention(q_THN: Tensor, rows: PagedRows, groups: int, scale: float) -> Tensor:
    """causal_attention of every sequence's new tokens over its rows, written before: (T, H, N) -> (T, H, N).

    Layout: a row is the keys of all `groups` key-value heads, then their values.
    """
    if _is_decode(rows):
        rows_BSX, seen_BS = _all_rows(rows, q_THN.dtype)
        rows_BGSN = rows_BSX.unflatten(-1, (2 * groups, -1)).transpose(1, 2)
        k_BGSN, v_BGSN = rows_BGSN[:, :groups], rows_BGSN[:, groups:]
        mask_B11S = seen_BS[:, None, None]
        q_BH1N = q_THN[:, :, None]
        out_BH1N = F.scaled_dot_product_attention(
            q_BH1N, k_BGSN, v_BGSN, attn_mask=mask_B11S, scale=scale, enable_gqa=True
        )
        return out_BH1N[:, :, 0]
    parts = []
    for q_LHN, rows_SX in zip(q_THN.split(rows.lengths), _each(rows, q_THN.dtype), strict=True):
        rows_SGN = rows_SX.unflatten(-1, (2 * groups, -1))
        parts.append(causal_attention(q_LHN, rows_SGN[:, :groups], rows_SGN[:, groups:], scale))
    return torch.cat(parts)


def paged_latent_attention(q_THQ: Tensor, rows: PagedRows, latent_dim: int, scale: float) -> Tensor:
    """latent_attention of every sequence's new tokens over its rows, written before: (T, H, C + R) -> (T, H, C)."""
    if _is_decode(rows):
        rows_BSQ, seen_BS = _all_rows(rows, q_THQ.dtype)
        score_BHS = torch.matmul(q_THQ, rows_BSQ.transpose(1, 2)).float() * scale
        score_BHS = score_BHS.masked_fill(~seen_BS[:, None], float("-inf"))
        return torch.matmul(score_BHS.softmax(-1).to(rows_BSQ.dtype), rows_BSQ[:, :, :latent_dim])
    parts = zip(q_THQ.split(rows.lengths), _each(rows, q_THQ.dtype), strict=True)
    return torch.cat([latent_attention(q_LHQ, rows_SQ, latent_dim, scale) for q_LHQ, rows_SQ in parts])


def _is_decode(rows: PagedRows) -> bool:
    return all(length == 1 for length in rows.lengths)


def _each(rows: PagedRows, dtype: torch.dtype) -> list[Tensor]:
    return [rows.sequence(number, dtype) for number in range(len(rows.lengths))]


def _all_rows(rows: PagedRows, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows of all pages in the table, (B, S, X), and which of them each sequence has, (B, S): the others are 0.

    What a foreign or unwritten row holds must not be multiplied even by 0, for it may be no number.
    """
    B, N = rows.table_BN.shape
    rows_BSX = rows.decoded(rows.pages_PSX[rows.table_BN.flatten()], dtype).view(B, N * PAGE, -1)
    seen_BS = torch.arange(N * PAGE, device=rows_BSX.device) < rows.counts_B[:, None]
    return rows_BSX.masked_fill(~seen_BS[..., None], 0), seen_BS
