"""The operations that models are made of. Models call them through this page only.

`reference/` is the specification; a faster implementation of an operation is chosen here and nowhere else.
"""

from seamount.kernels.reference import (
    causal_attention,
    expanded_latent_attention,
    grouped_experts,
    latent_attention,
    linear,
    rms_norm,
    rotate,
    swiglu,
)

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
