"""What a model's shape costs: parameters, the part of them that a token uses, and the cache.

Parameters are counted on the model's own modules, built without memory, so no formula here can drift from the model.
"""

from dataclasses import dataclass

import torch

from seamount.models.model import Model
from seamount.models.spec import ModelSpec, MoESpec

PARTS = ("embedding", "attention", "dense_feed_forward", "routed_experts", "shared_experts", "router", "norms", "head")

# DeepSeek-67B's cache, V2's point of comparison: 95 layers with 8 key and 8 value heads of 128.
DEEPSEEK_67B_KV_NUMBERS = 95 * 2 * 8 * 128
_DEEPSEEK_67B_KV_BITS = 16
_DEEPSEEK_V2_KV_BITS = 6


@dataclass(frozen=True)
class Parameters:
    """Parameter counts by part: all of them, those one token uses, and those of multi-token prediction, kept apart."""

    total_by_part: dict[str, int]
    active_by_part: dict[str, int]
    mtp: int

    @property
    def total(self) -> int:
        """All parameters of the main model, without multi-token prediction; the published sizes."""
        return sum(self.total_by_part.values())

    @property
    def active_with_embedding(self) -> int:
        """What one token uses, with the whole input embedding counted."""
        return sum(self.active_by_part.values())

    @property
    def active(self) -> int:
        """What one token multiplies with: the output head counts, the input embedding, a look-up of one row, does not.

        This is the count that agrees with the published ones (V2-Lite 2.4B, V2 21B, V3 37B). A tied embedding is also
        the head, and counts.
        """
        looked_up = self.active_by_part["embedding"] if self.active_by_part["head"] else 0
        return self.active_with_embedding - looked_up

    @property
    def active_in_layers(self) -> int:
        """What one token uses without embedding and head."""
        return self.active_with_embedding - self.active_by_part["embedding"] - self.active_by_part["head"]


def parameters(spec: ModelSpec) -> Parameters:
    """Counts the parameters of a shape.

    Cost: builds the modules without weights: milliseconds, no memory to speak of.
    """
    with torch.device("meta"):
        model = Model(spec, {})
    total, active, mtp = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0), 0
    for name, parameter in model.named_parameters():
        if name.startswith("mtp."):
            mtp += parameter.numel()
            continue
        part, count = _part(name), parameter.numel()
        total[part] += count
        if part == "routed_experts":
            experts = spec.layers[int(name.split(".")[1])].feed_forward
            assert isinstance(experts, MoESpec), f"{name} belongs to a layer without experts"
            count = count // experts.n_routed_experts * experts.num_experts_per_tok
        active[part] += count
    return Parameters(total, active, mtp)


def _part(name: str) -> str:
    for mark, part in (
        ("norm.weight", "norms"),
        ("embed_tokens.", "embedding"),
        ("lm_head.", "head"),
        (".mlp.experts.", "routed_experts"),
        (".mlp.shared_experts.", "shared_experts"),
        (".mlp.gate.", "router"),
        (".self_attn.", "attention"),
        (".mlp.", "dense_feed_forward"),
    ):
        if mark in name:
            return part
    raise AssertionError(f"parameter {name} belongs to no part that is counted")


def kv_numbers_per_token(spec: ModelSpec) -> int:
    """Numbers that the cache keeps for one token, over all layers."""
    return sum(layer.attention.cache_dim for layer in spec.layers)


def mha_kv_numbers_per_token(spec: ModelSpec) -> int:
    """Numbers that multi-head attention with the same heads would keep."""
    return sum(layer.attention.mha_cache_dim for layer in spec.layers)


def kv_bytes_per_token(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Bytes of cache for one token."""
    return kv_numbers_per_token(spec) * dtype.itemsize


def kv_ratio(spec: ModelSpec) -> float:
    """The cache as a share of multi-head attention's with the same heads."""
    return kv_numbers_per_token(spec) / mha_kv_numbers_per_token(spec)


def kv_reduction_from_67b(spec: ModelSpec) -> float:
    """How much smaller the cache is than DeepSeek-67B's, under the assumptions of the published 93.3 %.

    These are: this model's numbers quantised to 6 bits each, DeepSeek-67B's grouped-query cache kept at 16 bits.

    Source: DeepSeek-V2, arXiv 2405.04434, section 3.2.3 (6 bits) and abstract (93.3 %).
    """
    ours = kv_numbers_per_token(spec) * _DEEPSEEK_V2_KV_BITS
    return 1 - ours / (DEEPSEEK_67B_KV_NUMBERS * _DEEPSEEK_67B_KV_BITS)
