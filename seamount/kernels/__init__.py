"""The operations that models are made of. Models call them through this page only.

`reference/` is the specification; a faster implementation of an operation is chosen here and nowhere else.
"""

from torch import Tensor

from seamount.kernels import reference
from seamount.kernels.cpu_rows import is_one_row_of_bfloat16, one_row
from seamount.kernels.reference import (
    causal_attention,
    expanded_latent_attention,
    grouped_experts,
    latent_attention,
    rms_norm,
    rotate,
    swiglu,
)


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """`x W^T + b`, in the dtype of `x`: see reference.linear, and cpu_rows for one row of bfloat16."""
    if bias_F is None and is_one_row_of_bfloat16(x_TD, weight_FD):
        return one_row(x_TD, weight_FD)
    return reference.linear(x_TD, weight_FD, bias_F)


__all__ = [
    "causal_attention",
    "expanded_latent_attention",
    "grouped_experts",
    "latent_attention",
    "linear",
    "rms_norm",
    "rotate",
    "swiglu",
]
