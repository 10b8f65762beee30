"""The specification of every operation, in plain torch: what each faster kernel is tested against."""

from seamount.kernels.reference.attention import causal_attention, expanded_latent_attention, latent_attention
from seamount.kernels.reference.dense import head_linear, linear, log_softmax, rms_norm, sigmoid, swiglu
from seamount.kernels.reference.experts import grouped_experts, static_experts
from seamount.kernels.reference.packed import (
    packed_feed_forward,
    packed_heads,
    packed_linear,
    packed_mixture,
    packed_product,
)
from seamount.kernels.reference.paged import paged_causal_attention, paged_latent_attention, write_rows
from seamount.kernels.reference.rotary import rotate
from seamount.kernels.reference.sampling import Draw, draw_tokens, top_tokens

__all__ = [
    "Draw",
    "causal_attention",
    "draw_tokens",
    "expanded_latent_attention",
    "grouped_experts",
    "head_linear",
    "latent_attention",
    "linear",
    "log_softmax",
    "packed_feed_forward",
    "packed_heads",
    "packed_linear",
    "packed_mixture",
    "packed_product",
    "paged_causal_attention",
    "paged_latent_attention",
    "rms_norm",
    "rotate",
    "sigmoid",
    "static_experts",
    "swiglu",
    "top_tokens",
    "write_rows",
]
