"""The specification of every operation, in plain torch: what each faster kernel is tested against."""

from seamount.kernels.reference.attention import causal_attention, expanded_latent_attention, latent_attention
from seamount.kernels.reference.dense import linear, rms_norm, swiglu
from seamount.kernels.reference.experts import grouped_experts
from seamount.kernels.reference.rotary import rotate

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
