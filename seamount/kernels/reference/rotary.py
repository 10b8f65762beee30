"""Rotary position embedding: rotate pairs of channels by an angle that grows with the position."""

import torch
from torch import Tensor


def rotate(x_THR: Tensor, cos_TR: Tensor, sin_TR: Tensor, *, interleaved: bool) -> Tensor:
    """`x` with each pair of channels turned by its token's angle.

    Shapes: x (T, H, R); cos and sin (T, R/2), float32.
    Layout: a pair is (0, 1), (2, 3), ... when `interleaved` (DeepSeek's MLA), else (0, R/2), (1, R/2 + 1), ... (Llama).
    Source: RoFormer, arXiv 2104.09864, section 3.2.
    """
    cos_T1R, sin_T1R = cos_TR.unsqueeze(1), sin_TR.unsqueeze(1)
    if interleaved:
        even, odd = x_THR.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack((even * cos_T1R - odd * sin_T1R, even * sin_T1R + odd * cos_T1R), dim=-1).flatten(-2)
    else:
        first, second = x_THR.float().chunk(2, dim=-1)
        turned = torch.cat((first * cos_T1R - second * sin_T1R, second * cos_T1R + first * sin_T1R), dim=-1)
    return turned.to(x_THR.dtype)
